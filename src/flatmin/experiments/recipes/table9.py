"""Table 9: CIFAR with one rho for all networks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from flatmin.experiments.recipes import _notes
from flatmin.experiments.recipes._recipe import Cell, Recipe, rows, sam
from flatmin.experiments.recipes._table6 import AUGMENTATIONS, CIFAR, ROWS

#: Five networks with three augmentations; CIFAR-10 and CIFAR-100.
PRINTED = """
2.7 16.5
2.3 14.9
2.1 13.6
2.4 16.3
2.1 14.0
1.6 12.8
2.4 15.1
2.0 14.2
1.7 12.8
2.1 15.4
1.6 13.1
1.4 12.1
2.1 13.3
1.6 11.3
1.4 10.3
"""


def table9() -> Recipe:
    """Test error on CIFAR-10 and CIFAR-100 with SAM, rho 0.05 everywhere."""
    return Recipe(
        name="table9",
        title="CIFAR with rho 0.05, test error in %",
        headings=("data", "network", "augment"),
        cells=tuple(_cells()),
        notes=(
            "PyramidNet on CIFAR-10 has the numbers of PyramidNet + ShakeDrop (2.1, "
            "1.6, 1.4). In Table 1 it has 2.7, 1.9, 1.6, with the rho of 0.05 that "
            "Table 6 gives: probably a copied row.",
            "The WideResNet on CIFAR-100 has the numbers of Table 1, for which Table 6 "
            "gives rho 0.1.",
            _notes.SGD,
            _notes.DECAY,
            _notes.DEVICES,
            _notes.SHAKE_SHAKE,
            _notes.PYRAMIDNET,
            _notes.EPOCHS,
            _notes.CUTOUT,
        ),
    )


def _cells() -> Iterator[Cell]:
    lines = rows(PRINTED)
    for k, (data, data_label) in enumerate(CIFAR):
        settings = product(ROWS, AUGMENTATIONS)
        for (row, (slug, label, augment)), line in zip(settings, lines, strict=True):
            yield Cell(
                name=f"table9/{data}/{row.slug}/{slug}",
                labels=(data_label, row.label, label),
                arms=sam(row.base(k, augment), 0.05),
                paper=line[k],
            )

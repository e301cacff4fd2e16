"""Table 1: CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from flatmin.experiments.recipes import _notes
from flatmin.experiments.recipes._recipe import Cell, Recipe, rows, sam, sgd
from flatmin.experiments.recipes._table6 import AUGMENTATIONS, CIFAR, ROWS

#: Five networks with three augmentations; SAM and SGD on CIFAR-10, then on CIFAR-100.
PRINTED = """
2.7±.1  3.5±.1  16.5±.2 18.8±.2
2.3±.1  2.6±.1  14.9±.2 16.9±.1
2.1±<.1 2.3±.1  13.6±.2 15.8±.2
2.4±.1  3.5±.1  16.3±.2 19.1±.1
2.1±.1  2.7±.1  14.0±.1 17.4±.1
1.6±.1  2.2±<.1 12.8±.2 16.1±.2
2.3±<.1 2.7±.1  15.1±.1 17.0±.1
2.0±<.1 2.3±.1  14.2±.2 15.7±.2
1.6±<.1 1.9±.1  12.8±.1 14.1±.2
2.7±.1  4.0±.1  14.6±.4 19.7±.3
1.9±.1  2.5±.1  12.6±.2 16.4±.1
1.6±.1  1.9±.1  11.6±.1 14.6±.1
2.1±.1  2.5±.1  13.3±.2 14.5±.1
1.6±<.1 1.9±.1  11.3±.1 11.8±.2
1.4±<.1 1.6±<.1 10.3±.1 10.6±.1
"""


def table1() -> Recipe:
    """Test error on CIFAR-10 and CIFAR-100 of five networks, with SAM and without."""
    return Recipe(
        name="table1",
        title="CIFAR-10 and CIFAR-100, test error in %",
        headings=("data", "network", "augment", "method"),
        cells=tuple(_cells()),
        notes=(
            *_notes.COMMON,
            _notes.SHAKE_SHAKE,
            _notes.PYRAMIDNET,
            _notes.EPOCHS,
            _notes.CUTOUT,
            "Learning rate, weight decay and rho are those of Table 6, which does not "
            "tell the three augmentations apart.",
        ),
    )


def _cells() -> Iterator[Cell]:
    lines = rows(PRINTED)
    for k, (data, data_label) in enumerate(CIFAR):
        settings = product(ROWS, AUGMENTATIONS)
        for (row, (slug, label, augment)), line in zip(settings, lines, strict=True):
            base = row.base(k, augment)
            arms = {"SAM": sam(base, row.rho[k]), "SGD": sgd(base)}
            numbers = line[2 * k : 2 * k + 2]
            for method, number in zip(arms, numbers, strict=True):
                yield Cell(
                    name=f"table1/{data}/{row.slug}/{slug}/{method.lower()}",
                    labels=(data_label, row.label, label, method),
                    arms=arms[method],
                    paper=number,
                )

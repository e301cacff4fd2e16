"""Table 11: more than one step up."""

from __future__ import annotations

from collections.abc import Iterator

from flatmin.experiments.config import BASIC
from flatmin.experiments.recipes import _notes
from flatmin.experiments.recipes._recipe import Cell, Metric, Recipe, rows
from flatmin.experiments.recipes._table6 import CIFAR, ROWS

STEPS = (1, 2, 3, 5)
NUMBERS: tuple[tuple[str, Metric], ...] = (
    ("error", "test_error"),
    ("sharpness", "error_sharpness"),
)

#: By steps; error and sharpness on CIFAR-10, then on CIFAR-100.
PRINTED = """
2.77±.03 .17±.03  16.72±.08 .82±.05
2.76±.03 .82±.03  16.59±.08 1.83±.05
2.73±.04 1.49±.05 16.62±.09 2.36±.03
2.77±.03 2.26±.05 16.60±.06 2.82±.04
"""


def table11() -> Recipe:
    """Test error and sharpness with one to five steps up."""
    return Recipe(
        name="table11",
        title="More steps up, test error and sharpness in %",
        headings=("data", "steps up", "number"),
        cells=tuple(_cells()),
        seeds=20,
        spread="standard deviation",
        notes=(
            'The paper says "WideResNet". Here: WRN-28-10 with Basic augmentation, '
            "200 epochs and Table 6's settings; one step is then Table 1's 2.7 % and "
            "16.5 %.",
            "Sharpness is the rise of a batch's training error from w to w + eps. The "
            "table does not state its unit; the text compares 5 steps "
            'with 1 as "about 3%", so here it is per cent.',
            "Here: eps takes as many steps up as in training and has length rho.",
            _notes.SGD,
            _notes.DECAY,
            _notes.DEVICES,
        ),
    )


def _cells() -> Iterator[Cell]:
    row = ROWS[0]
    for k, (data, label) in enumerate(CIFAR):
        for steps, line in zip(STEPS, rows(PRINTED), strict=True):
            arm = row.base(k, BASIC).model_copy(
                update={
                    "method": "multi_step_sam",
                    "method_options": {"k": steps},
                    "rho": row.rho[k],
                    "flatness_rho": row.rho[k],
                }
            )
            folder = f"table11/{data}/steps-{steps}"
            numbers = line[2 * k : 2 * k + 2]
            for (slug, metric), paper in zip(NUMBERS, numbers, strict=True):
                yield Cell(
                    name=f"{folder}/{slug}",
                    labels=(label, str(steps), slug),
                    arms=(arm,),
                    metric=metric,
                    paper=paper,
                    folder=folder,
                )

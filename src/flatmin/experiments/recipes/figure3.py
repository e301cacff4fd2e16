"""Figure 3: the Hessian while training, and the examples that share a perturbation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from flatmin.experiments.config import Experiment
from flatmin.experiments.recipes import _notes
from flatmin.experiments.recipes._recipe import Cell, M, Metric, Recipe, rows, sam, sgd

EPOCHS = (1, 50, 300)
NUMBERS: tuple[tuple[str, str, Metric], ...] = (
    ("lambda-max", "lambda max", "lambda_max"),
    ("lambda-ratio", "lambda max / lambda 5", "lambda_ratio"),
)

#: By epoch; lambda max and lambda max / lambda 5 of SGD, then of SAM.
PRINTED = """
62.9 2.5  18.6 3.6
12.5 1.7  8.9  1.9
24.2 11.4 1.0  2.6
"""

#: Examples that share a perturbation.
MS = (1, 4, 16, 64, 256)

#: On the figure's axis from 0 to 0.15.
RHOS = (0.01, 0.02, 0.05, 0.1, 0.15)


def figure3_left() -> Recipe:
    """The largest eigenvalues of the Hessian after 1, 50 and 300 epochs."""
    return Recipe(
        name="figure3-left",
        title="The Hessian's eigenvalues while training",
        headings=("method", "epoch", "number"),
        cells=tuple(_spectra()),
        seeds=1,
        notes=(
            'Section 4.2 says "trained for 300 steps", the figure says epoch 300. '
            "Here: epochs.",
            "The network is WRN-40-10 without BatchNorm. The paper does not say what "
            "it has instead: here, SkipInit and biases.",
            "The paper does not give learning rate, weight decay, augmentation or rho. "
            "Here: those of WRN-28-10 with Basic in Table 6.",
            "SGD is trained for 300 epochs only, not for twice as many: the figure "
            "shows moments of training.",
            _notes.SGD,
            _notes.DECAY,
            _notes.DEVICES,
        ),
    )


def figure3_middle() -> Recipe:
    """Test error by m and rho."""
    base = Experiment(model="resnet-20", epochs=200)
    return Recipe(
        name="figure3-middle",
        title="CIFAR-10, test error in % by m and rho",
        headings=("m", "rho"),
        cells=tuple(
            Cell(
                name=f"figure3-middle/m-{m}/rho-{rho:g}",
                labels=(str(m), f"{rho:g}"),
                arms=sam(base.model_copy(update={"m": m}), rho),
            )
            for m, rho in product(MS, RHOS)
        ),
        notes=(
            "A figure without a table: by its axes, rho is from 0 to 0.15 and the "
            "error from 4 % to 8 %, less for smaller m.",
            "The paper says a small ResNet and not which. Here: ResNet-20, with the "
            "learning rate, weight decay and epochs of WRN-28-10 in Table 6. Seeds: 5, "
            "as in the tables.",
            "m examples share BatchNorm's statistics too, as on an accelerator. With "
            "m = 1 each image has its own.",
            _notes.SGD,
            _notes.DECAY,
        ),
    )


def _spectra() -> Iterator[Cell]:
    base = Experiment(
        model="wrn-40-10-no-bn", m=M, epochs=max(EPOCHS), spectrum_at=EPOCHS
    )
    arms = {"SGD": sgd(base, lengths=(1,)), "SAM": sam(base, 0.05)}
    for at, (epoch, line) in enumerate(zip(EPOCHS, rows(PRINTED), strict=True)):
        columns = product(arms, NUMBERS)
        for (method, (slug, label, metric)), paper in zip(columns, line, strict=True):
            folder = f"figure3-left/{method.lower()}"
            yield Cell(
                name=f"{folder}/epoch-{epoch}/{slug}",
                labels=(method, str(epoch), label),
                arms=arms[method],
                metric=metric,
                paper=paper,
                folder=folder,
                at=at,
            )

"""Figure 1: a sharp and a wide minimum."""

from __future__ import annotations

from flatmin.experiments.config import Experiment
from flatmin.experiments.recipes import _notes
from flatmin.experiments.recipes._recipe import Cell, M, Recipe, sam, sgd


def figure1() -> Recipe:
    """The loss around the minima of SGD and of SAM."""
    base = Experiment(model="resnet-32", m=M, epochs=200)
    return Recipe(
        name="figure1",
        title="The loss around the minima of SGD and of SAM",
        headings=("method",),
        cells=(
            Cell("figure1/sgd", ("SGD",), sgd(base)),
            Cell("figure1/sam", ("SAM",), sam(base, 0.05)),
        ),
        seeds=1,
        notes=(
            "The figure's landscapes are of a ResNet; the paper does not say which, "
            "nor its data and settings. Here: the ResNet-32 of Table 4 on CIFAR-10, "
            "learning rate 0.1 and weight decay 0.0005 of the WideResNet in Table 6, "
            "and rho 0.05.",
            "The figure's left part, error reductions, comes from the other tables.",
            "Two commands draw it: flatmin train figure1, and then flatmin landscape "
            "runs/figure1.",
            *_notes.COMMON,
        ),
    )

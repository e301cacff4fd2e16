"""What a recipe is: the cells of one table or figure, and the paper's numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flatmin.experiments.experiment import Experiment

#: What a cell reports: a key of a run's result, and whether a table shows 100 minus it.
Metric = Literal[
    "test_error",
    "test_accuracy",
    "top5_error",
    "error_sharpness",
    "lambda_max",
    "lambda_ratio",
]


@dataclass(frozen=True, slots=True)
class Paper:
    """A number the paper prints.

    Attributes:
        value: in the unit of the cell's metric, per cent for errors.
        spread: what follows the ±; None if nothing does.
        below: whether the paper prints "<" before the spread.
    """

    value: float
    spread: float | None = None
    below: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of a table.

    Attributes:
        name: unique: ``table4/noise-40/sam``.
        labels: where it stands in the table, one for each of the recipe's headings.
        arms: what is trained. Of several, which differ in length, the one with the
            least mean error is reported, as the paper does for SGD.
        metric: what is reported of a run.
        paper: the paper's number; None where it prints none.
        notes: what a reader of this number has to know.
        folder: of its runs; the name by default. Two cells that report the same runs,
            as top-1 and top-5, have one folder.
        at: which of the arms' ``spectrum_at`` is reported, counted from 0; None for
            the end of training.
    """

    name: str
    labels: tuple[str, ...]
    arms: tuple[Experiment, ...]
    metric: Metric = "test_error"
    paper: Paper | None = None
    notes: tuple[str, ...] = ()
    folder: str = ""
    at: int | None = None

    def __post_init__(self) -> None:
        if not self.folder:
            object.__setattr__(self, "folder", self.name)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A table or figure of the paper that can be run.

    Attributes:
        name: as the command line knows it: ``table4``.
        title: what it shows.
        headings: what the labels of its cells are.
        cells: its numbers.
        seeds: runs per arm; the paper's intervals are over 5.
        spread: what the paper's ± is.
        notes: where the paper is silent, contradicts itself or its code, and what is
            done here.
        scale: "paper", or in words what is smaller than there.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    cells: tuple[Cell, ...]
    seeds: int = 5
    spread: str = "95 % confidence interval"
    notes: tuple[str, ...] = ()
    scale: str = "paper"

"""Recipes: the cells of a table or figure, their arms, and the paper's numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from flatmin.experiments.config import Experiment
from flatmin.experiments.errors import BadInput, unknown

#: The number that a cell reports. Errors and accuracies are in per cent; ``test_mse``
#: is of a standardised series. ``error_sharpness`` is the rise of the training error
#: from w to w + eps; ``lambda_ratio`` is the largest eigenvalue divided by the fifth.
Metric = Literal[
    "test_error",
    "test_accuracy",
    "top5_error",
    "test_mse",
    "error_sharpness",
    "lambda_max",
    "lambda_ratio",
]

#: The grid for rho in the paper of SAM.
RHOS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

_PRINTED = re.compile(r"(\d*\.?\d+)(?:±(<?)(\d*\.?\d+))?")
_PATH = re.compile(r"[a-z0-9][a-z0-9.-]*(?:/[a-z0-9][a-z0-9.-]*)+")


#: Examples of one of a host's 8 accelerators, of the default batch of 256.
M = 32


@dataclass(frozen=True, slots=True)
class Paper:
    """A number the paper prints.

    Attributes:
        value: in the unit of the cell's metric, per cent for errors.
        spread: what follows the ±; None if nothing does.
        below: whether the paper prints "<" before the spread.
        text: all of it as printed, for tables; made of the other fields if not given.
    """

    value: float
    spread: float | None = None
    below: bool = False
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.text:
            below = "<" if self.below else ""
            spread = "" if self.spread is None else f"±{below}{self.spread:g}"
            object.__setattr__(self, "text", f"{self.value:g}{spread}")

    @classmethod
    def printed(cls, text: str) -> Paper:
        """Read a number as the paper prints it.

        Raises:
            ValueError: the text is no number.

        Example:
            >>> from flatmin.experiments.recipes import Paper
            >>> Paper.printed("2.1±<.1")
            Paper(value=2.1, spread=0.1, below=True, text='2.1±<.1')
        """
        if (match := _PRINTED.fullmatch(text)) is None:
            raise ValueError(f"not a number as the paper prints them: {text!r}")
        value, below, spread = match.groups()
        number = None if spread is None else float(spread)
        return cls(float(value), number, bool(below), text)


def rows(text: str) -> list[list[Paper | None]]:
    """Read the lines of a table as the paper prints it; None where it prints "-"."""
    return [
        [None if word == "-" else Paper.printed(word) for word in line.split()]
        for line in text.strip().splitlines()
    ]


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of a table.

    Attributes:
        name: unique: ``table4/noise-40/sam``.
        labels: its place in the table, one for each of the recipe's headings.
        arms: the experiments that are trained; they differ in length or in a setting
            that the paper tries too, and the one with the best mean is reported. Empty
            for a number that the paper quotes from others.
        metric: what is reported of a run.
        paper: the paper's number; None where it prints none.
        notes: what a reader of this number has to know.
        folder: of its runs, with a folder in it for each arm; the name if not given.
            Cells that report different numbers of the same runs share it.
        at: which of the arms' ``spectrum_at`` is reported, counted from 0; None for
            the end of training.

    Raises:
        ValueError: the name or the folder is no path, the arms are not distinct, or
            they measure no spectrum ``at`` that place.
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
        object.__setattr__(self, "folder", self.folder or self.name)
        for path in (self.name, self.folder):
            if not _PATH.fullmatch(path):
                raise ValueError(f"{path!r} is no name of a cell: a-z 0-9 . - and /")
        if any(arm in self.arms[:k] for k, arm in enumerate(self.arms)):
            raise ValueError(f"{self.name} has the same arm twice")
        for arm in self.arms:
            if self.at is not None and not 0 <= self.at < len(arm.spectrum_at):
                raise ValueError(
                    f"{self.name} reports spectrum {self.at + 1} of spectrum_at "
                    f"{arm.spectrum_at}"
                )

    @property
    def epoch(self) -> int | None:
        """The epoch after which the number is measured; None for the last."""
        return None if self.at is None else self.arms[0].spectrum_at[self.at]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A table or figure of the paper that can be run.

    Attributes:
        name: on the command line: ``table4``.
        title: what it shows.
        headings: above the labels of its cells.
        cells: its numbers, or some of them.
        seeds: runs per arm, with seeds from 0 on; the paper's intervals are over 5.
        spread: what the paper's ± is.
        notes: where the paper is silent or contradicts itself or its code, and what is
            done here.
        scale: "paper", "smoke", or in words what differs from the paper.
        rhos: what ``flatmin sweep`` tries by default.

    Raises:
        ValueError: no seeds, no cells, a cell's name occurs twice or does not start
            with the recipe's, its labels do not fit the headings, or cells with the
            same folder have different arms.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    cells: tuple[Cell, ...]
    seeds: int = 5
    spread: str = "95 % confidence interval"
    notes: tuple[str, ...] = ()
    scale: str = "paper"
    rhos: tuple[float, ...] = RHOS

    def __post_init__(self) -> None:
        if self.seeds < 1 or not self.cells:
            raise ValueError(f"{self.name} needs cells, and at least 1 seed")
        names = [cell.name for cell in self.cells]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.name} has two cells of the same name")
        arms = {cell.folder: cell.arms for cell in self.cells}
        for cell in self.cells:
            if not cell.name.startswith(f"{self.name}/"):
                raise ValueError(f"{cell.name} is not in {self.name}")
            if len(cell.labels) != len(self.headings):
                raise ValueError(f"{cell.name} has {len(cell.labels)} labels")
            if arms[cell.folder] != cell.arms:
                raise ValueError(f"{cell.folder} would hold runs of different arms")

    def part(self, prefix: str) -> Recipe:
        """Return the recipe with only those cells whose paths begin with ``prefix``.

        Raises:
            BadInput: no path does; the message has the nearest prefix of one.
        """
        prefix = prefix.rstrip("/")
        inside = [c for c in self.cells if f"{c.name}/".startswith(f"{prefix}/")]
        if not inside:
            raise BadInput(unknown("cell", prefix, self.prefixes()))
        return replace(self, cells=tuple(inside))

    def prefixes(self) -> tuple[str, ...]:
        """Return everything that `part` takes, short ones first."""
        paths = [cell.name.split("/") for cell in self.cells]
        depth = max(len(path) for path in paths)
        found = ("/".join(p[:n]) for n in range(1, depth + 1) for p in paths)
        return tuple(dict.fromkeys(found))


def sam(base: Experiment, rho: float) -> tuple[Experiment, ...]:
    """Return the one arm of a cell with SAM."""
    return (base.model_copy(update={"method": "sam", "rho": rho}),)


def sgd(base: Experiment, lengths: tuple[int, ...] = (1, 2)) -> tuple[Experiment, ...]:
    """Return the arms of a cell without SAM: as many epochs, and twice as many."""
    return tuple(
        base.model_copy(update={"method": "sgd", "rho": 0.0, "length": length})
        for length in lengths
    )

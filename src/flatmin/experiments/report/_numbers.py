"""From runs to numbers: means and intervals over seeds, the better arm, what waits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatmin.experiments.experiment import Experiment
from flatmin.experiments.folders import arm_name, run_folder
from flatmin.experiments.recipes._recipe import Cell, Recipe
from flatmin.experiments.report._stored import (
    Epoch,
    Result,
    Started,
    StoredRun,
    runs_of,
)
from flatmin.experiments.summary import interval

#: Of a recipe with no more cells than this, those without runs are listed too.
SMALL = 24


@dataclass(frozen=True, slots=True)
class Arm:
    """What was trained for a cell, over all its seeds.

    Attributes:
        name: of its folder.
        own: the experiment as the recipe has it.
        cell: what it is an arm of.
        runs: finished or not.
    """

    name: str
    own: Experiment
    cell: Cell
    runs: tuple[StoredRun, ...]

    @property
    def results(self) -> list[Result]:
        """Those of finished runs."""
        return [run.result for run in self.runs if run.result is not None]

    @property
    def values(self) -> tuple[float, ...]:
        """The metric of each finished run; NaN where it was not measured."""
        finished = (run for run in self.runs if run.result is not None)
        return tuple(_value(run, self.cell) for run in finished)

    @property
    def interval(self) -> float | None:
        """Half the width of Student's 95 % interval; None for less than two runs."""
        return interval(self.values)

    @property
    def mean(self) -> float:
        """Of the values; NaN if there is none."""
        return _mean(self.values)

    @property
    def gradient_examples(self) -> float:
        """Mean of the finished runs."""
        return _mean([result.gradient_examples for result in self.results])

    @property
    def seconds(self) -> float:
        """Mean of the finished runs."""
        return _mean([result.seconds for result in self.results])

    @property
    def error(self) -> float:
        """What arms are chosen by: the mean of the error that the cell is about."""
        if self.cell.metric == "top5_error":
            return math.inf if math.isnan(self.mean) else self.mean
        return _mean([result.test_error for result in self.results])


@dataclass(frozen=True, slots=True)
class Row:
    """A cell and its runs.

    Attributes:
        cell: the recipe's.
        arms: in the recipe's order.
        seeds: runs of each arm that were asked for.
        smoke: whether they have no meaning.
    """

    cell: Cell
    arms: tuple[Arm, ...]
    seeds: int
    smoke: bool

    @property
    def started(self) -> bool:
        """Whether there is any run."""
        return any(arm.runs for arm in self.arms)

    @property
    def done(self) -> int:
        """Finished runs among those that were asked for."""
        return sum(min(len(arm.results), self.seeds) for arm in self.arms)

    @property
    def asked(self) -> int:
        """Runs that were asked for, of all arms together."""
        return self.seeds * len(self.arms)

    @property
    def reported(self) -> Arm | None:
        """The arm with the least mean error; None while a run of any arm is missing.

        None as well for a number without arms, which the paper quotes.
        """
        if self.done < self.asked or not self.arms:
            return None
        return min(self.arms, key=lambda arm: arm.error)

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, in the unit of the metric.

        None without either, and of a smoke run.
        """
        if self.reported is None or self.cell.paper is None or self.smoke:
            return None
        ours = self.reported.mean
        return ours - self.cell.paper.value if math.isfinite(ours) else None


@dataclass(frozen=True, slots=True)
class Report:
    """One recipe's runs in one folder.

    Attributes:
        recipe: as the package has it.
        started: what was asked for.
        rows: one for each of the recipe's cells.
    """

    recipe: Recipe
    started: Started
    rows: tuple[Row, ...]

    @property
    def shown(self) -> list[Row]:
        """The cells that tables list: those with runs, or all of a small recipe."""
        small = len(self.rows) <= SMALL
        return [row for row in self.rows if small or row.started or not row.arms]

    @property
    def runs(self) -> Iterator[tuple[Arm, StoredRun]]:
        """Every run once, also where two cells report it."""
        seen: set[Path] = set()
        for arm in (arm for row in self.rows for arm in row.arms):
            for run in arm.runs:
                if run.folder not in seen:
                    seen.add(run.folder)
                    yield arm, run


def collect(root: Path, recipe: Recipe, started: Started) -> Report:
    """The recipe's runs in a folder.

    Raises:
        BadInput: a file is damaged, or runs of an arm differ in more than the seed.
    """
    rows = tuple(_row(root, cell, started) for cell in recipe.cells)
    return Report(recipe, started, rows)


def records(report: Report) -> list[dict[str, Any]]:
    """The numbers behind the table, one record per arm of the cells that it lists."""
    return [_record(report, row, arm) for row in report.shown for arm in row.arms]


def _record(report: Report, row: Row, arm: Arm) -> dict[str, Any]:
    paper = row.cell.paper
    chosen = row.reported is arm
    return {
        "cell": row.cell.name,
        **dict(zip(report.recipe.headings, row.cell.labels, strict=True)),
        "quantity": row.cell.metric,
        "arm": arm.name,
        "reported": chosen,
        "runs": len(arm.results),
        "asked": row.seeds,
        "mean": _finite(arm.mean),
        "interval": _finite(arm.interval),
        "values": [_finite(value) for value in arm.values],
        "paper": paper.value if paper else None,
        "paper spread": paper.spread if paper else None,
        "paper spread below": paper.below if paper else None,
        "difference": row.difference if chosen else None,
        "gradient examples": _finite(arm.gradient_examples),
        "seconds": _finite(arm.seconds),
    }


def _row(root: Path, cell: Cell, started: Started) -> Row:
    arms = tuple(
        Arm(
            name=arm_name(cell, arm),
            own=arm,
            cell=cell,
            runs=runs_of(run_folder(root, cell, arm, 0).parent),
        )
        for arm in cell.arms
    )
    # The record is that of the last command; others may have written to the folder.
    smoke = started.smoke or any(run.smoke for arm in arms for run in arm.runs)
    return Row(cell, arms, started.seeds, smoke)


def _value(run: StoredRun, cell: Cell) -> float:
    measured = run.result if cell.at is None else _spectrum(run, cell.at)
    if cell.metric == "test_accuracy":
        return 100 - getattr(measured, "test_error", math.nan)
    value = getattr(measured, cell.metric, None)
    return math.nan if value is None else value


def _spectrum(run: StoredRun, at: int) -> Epoch | None:
    """The epoch after which the run measured this one of its spectra."""
    epochs = run.config.experiment.spectrum_at[at : at + 1]
    return next((one for one in run.epochs if one.epoch in epochs), None)


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan


def _finite(number: float | None) -> float | None:
    """JSON has no NaN."""
    return None if number is None or not math.isfinite(number) else number

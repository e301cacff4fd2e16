"""From runs to numbers: means and intervals over seeds, the best arm, missing runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flatmin.experiments.config import Experiment
from flatmin.experiments.intervals import interval, mean
from flatmin.experiments.recipes._recipe import Cell, Recipe
from flatmin.experiments.report._runs import StoredRun, differences, runs_of
from flatmin.experiments.report._words import setting
from flatmin.experiments.runs.asked import Asked, arm_name, run_folder
from flatmin.experiments.tasks import diverged, task_of

#: A recipe with no more cells than this has those without runs listed too.
SMALL = 24

#: Runs that differ in one of these are not compared with the paper's number.
_DATA_AND_NETWORK = (
    "data",
    "horizon",
    "lookback",
    "tokens",
    "image_size",
    "train_examples",
    "validation",
    "noise",
    "true_class",
    "model",
    "model_options",
)


@dataclass(frozen=True, slots=True)
class Arm:
    """An experiment of a cell, and its runs with all seeds.

    Attributes:
        name: of its folder.
        own: the experiment as the recipe has it.
        cell: the cell to which it belongs.
        runs: finished or not.
    """

    name: str
    own: Experiment
    cell: Cell
    runs: tuple[StoredRun, ...]

    @property
    def results(self) -> list[dict[str, Any]]:
        """The results of finished runs."""
        return [run.result for run in self.runs if run.result is not None]

    @property
    def values(self) -> tuple[float, ...]:
        """The metric of each finished run; NaN where it was not measured."""
        finished = (run for run in self.runs if run.result is not None)
        return tuple(_value(run, self.cell) for run in finished)

    @property
    def diverged(self) -> int:
        """How many of the finished runs have losses that are not finite."""
        return sum(map(diverged, self.results))

    @property
    def interval(self) -> float | None:
        """Half the width of Student's 95 % interval; None for less than two runs."""
        return interval(self.values)

    @property
    def mean(self) -> float:
        """The mean of the values; NaN if there is none."""
        return mean(self.values)

    @property
    def gradient_examples(self) -> float:
        """Mean of the finished runs."""
        return mean([result["gradient_examples"] for result in self.results])

    @property
    def seconds(self) -> float:
        """Mean of the finished runs."""
        return mean([result["seconds"] for result in self.results])

    @property
    def error(self) -> float:
        """The mean error by which the reported arm is chosen."""
        if self.cell.metric == "top5_error":
            return math.inf if math.isnan(self.mean) else self.mean
        score = task_of(self.own).score
        return mean([result[score] for result in self.results])


@dataclass(frozen=True, slots=True)
class Row:
    """A cell and its runs.

    Attributes:
        cell: the recipe's.
        arms: in the recipe's order.
        seeds: how many runs of each arm were asked for.
        smoke: whether they are smoke runs, whose numbers have no meaning.
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
        """How many of the runs that were asked for are finished."""
        return sum(min(len(arm.results), self.seeds) for arm in self.arms)

    @property
    def asked(self) -> int:
        """How many runs were asked for, of all arms together."""
        return self.seeds * len(self.arms)

    @property
    def reported(self) -> Arm | None:
        """The arm with the least mean error.

        None while a run of any arm is missing, and for a quoted number without arms.
        """
        if self.done < self.asked or not self.arms:
            return None
        return min(self.arms, key=lambda arm: arm.error)

    @property
    def difference(self) -> float | None:
        """Our number minus the paper's, in the unit of the metric.

        None if one of them is missing, and for smoke runs.
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
        rows: one or more for each of the recipe's cells.
    """

    recipe: Recipe
    started: Asked
    rows: tuple[Row, ...]

    @property
    def shown(self) -> list[Row]:
        """The rows that tables list: those with runs or only quoted, or all if few."""
        small = len(self.rows) <= SMALL
        return [row for row in self.rows if small or row.started or not row.arms]

    @property
    def runs(self) -> Iterator[tuple[Arm, StoredRun]]:
        """Every run once, even where two cells report it."""
        seen: set[Path] = set()
        for arm in (arm for row in self.rows for arm in row.arms):
            for run in arm.runs:
                if run.folder not in seen:
                    seen.add(run.folder)
                    yield arm, run


def collect(root: Path, recipe: Recipe, started: Asked) -> Report:
    """Read the recipe's runs in a folder.

    Raises:
        BadInput: a file is damaged, or runs of an arm differ in more than the seed.
    """
    rows = (row for cell in recipe.cells for row in _rows(root, cell, started))
    return Report(recipe, started, tuple(rows))


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
        "diverged": arm.diverged,
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


def _rows(root: Path, cell: Cell, asked: Asked) -> Iterator[Row]:
    """Yield a row for each data and network that a cell's arms were run on."""
    arms = [_arm(root, cell, own) for own in cell.arms]
    found = {arm.name: _foreign(arm) for arm in arms if arm.runs}
    kinds = sorted(set(found.values())) or [""]
    for kind in kinds:
        # Arms without runs go to the first row, which is the paper's if there is one.
        mine = [arm for arm in arms if found.get(arm.name, kinds[0]) == kind]
        if kind:
            other = _without_paper(cell, kind, apart=len(kinds) > 1)
            mine = [replace(arm, cell=other) for arm in mine]
        else:
            # The paper's number is of all arms: those run on other data are missing.
            mine = [arm if arm in mine else replace(arm, runs=()) for arm in arms]
        yield _row(mine, cell, asked)


def _row(arms: list[Arm], cell: Cell, asked: Asked) -> Row:
    # ``asked`` is of the last command only; earlier ones may have been smoke runs.
    smoke = asked.smoke or any(run.smoke for arm in arms for run in arm.runs)
    here = arms[0].cell if arms else cell
    return Row(here, tuple(arms), asked.seeds_of(cell.name), smoke)


def _arm(root: Path, cell: Cell, own: Experiment) -> Arm:
    runs = runs_of(run_folder(root, cell, own, 0).parent)
    return Arm(name=arm_name(cell, own), own=own, cell=cell, runs=runs)


def _foreign(arm: Arm) -> str:
    """Name the settings in which an arm's runs have other data or another network."""
    trained = arm.runs[0].config.experiment
    names = differences(trained, arm.own, _DATA_AND_NETWORK)
    return ", ".join(setting(name, getattr(trained, name)) for name in names)


def _without_paper(cell: Cell, kind: str, *, apart: bool) -> Cell:
    note = f"Not the paper's data and network: {kind}. Its number is not comparable."
    labels = cell.labels
    if apart:
        labels = (*labels[:-1], f"{labels[-1]} ({kind})")
    return replace(cell, labels=labels, paper=None, notes=(*cell.notes, note))


def _value(run: StoredRun, cell: Cell) -> float:
    measured = run.result if cell.at is None else _spectrum(run, cell.at)
    if measured is None:
        return math.nan
    if cell.metric == "test_accuracy":
        return 100 - measured["test_error"]
    value = measured.get(cell.metric)
    return math.nan if value is None else value


def _spectrum(run: StoredRun, at: int) -> dict[str, Any] | None:
    """Return the metrics of the epoch in which a run measured spectrum ``at``."""
    epochs = run.config.experiment.spectrum_at[at : at + 1]
    return next((one for one in run.epochs if one["epoch"] in epochs), None)


def _finite(number: float | None) -> float | None:
    """Return None for NaN and infinity, which JSON does not have."""
    return None if number is None or not math.isfinite(number) else number

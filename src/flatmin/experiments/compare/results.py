"""The results of a comparison: rows for each arm under each setting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatmin.experiments.compare.plan import BASE, Arm, Setting
from flatmin.experiments.config import Experiment
from flatmin.experiments.intervals import mean

#: A run's ``result.json``.
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One arm under one setting, over all seeds.

    Attributes:
        setting: under which it was trained.
        arm: the way in which it was trained.
        averaged: whether the average of the weights is tested, not the last weights.
        longest: whether this is the base's longest schedule, which was not chosen.
        experiment: the candidate that was chosen; its seed has no meaning.
        tries: how many candidates there were.
        ties: how many others the validation images cannot tell from the chosen one.
        validation: its validation error for each seed, per cent.
        results: of the final runs, one for each seed, trained on all training images.
        folders: of these runs.
        search_examples: gradient examples of all the arm's candidates and seeds.
        search_seconds: of training them.
    """

    setting: Setting
    arm: Arm
    averaged: bool
    longest: bool
    experiment: Experiment
    tries: int
    ties: int
    validation: tuple[float, ...]
    results: tuple[Result, ...]
    folders: tuple[Path, ...]
    search_examples: int
    search_seconds: float

    @property
    def label(self) -> str:
        """The row's name in tables."""
        name = self.arm.label(self.experiment.optimizer, averaged=self.averaged)
        return f"{name}, longest schedule" if self.longest else name

    @property
    def choice(self) -> str:
        """The settings that were chosen, as in ``"lr 0.1, rho 0.2, 30 epochs"``."""
        one = self.experiment
        radius = "" if self.arm == BASE else f", rho {one.rho:g}"
        return f"lr {one.lr:g}{radius}, {one.epochs} epochs"

    @property
    def errors(self) -> tuple[float, ...]:
        """The test error of each seed, per cent."""
        return tuple(result["test_error"] for result in self.results)

    @property
    def error(self) -> float:
        """The mean of `errors`."""
        return self.mean("test_error")

    @property
    def gradient_examples(self) -> int:
        """Over how many examples one final run took gradients."""
        return self.results[0]["gradient_examples"]

    def mean(self, name: str) -> float:
        """Return the mean of one of the results; NaN if a run could not measure it."""
        values = [result.get(name) for result in self.results]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if len(known) == len(values) else math.nan


def best_base(rows: list[Row]) -> Row:
    """Return the base with the lowest validation error, averaged or not."""
    base = [row for row in rows if row.arm == BASE and not row.longest]
    return min(base, key=lambda row: mean(row.validation))


def best(rows: list[Row]) -> Row:
    """Return the row with the lowest validation error; of equal ones, the first."""
    chosen = [row for row in rows if not row.longest]
    return min(chosen, key=lambda row: mean(row.validation))


def best_other(rows: list[Row]) -> Row:
    """Return the best row by validation error that is not the base's."""
    return best([row for row in rows if row.arm != BASE])


def by_setting(rows: list[Row]) -> list[list[Row]]:
    """Group the rows by setting, in the order in which they were trained."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.setting.name, []).append(row)
    return list(grouped.values())

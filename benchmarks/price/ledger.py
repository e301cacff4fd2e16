"""The finished runs of a task as one CSV file, from which a study can go on."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from arms import Setting

from flatmin.experiments.config import Experiment
from flatmin.experiments.runs.files import write
from flatmin.experiments.table import Table

#: The numbers of a finished run.
Result = dict[str, Any]


class Key(NamedTuple):
    """What tells the runs of a task apart.

    Attributes:
        stage: ``"choose"`` on held-out examples, or ``"test"``.
        arm: the name of the way to train.
        steps: of the run.
        lr: its learning rate.
        rho: its radius; a base has the default's.
        seed: of the run.
    """

    stage: str
    arm: str
    steps: int
    lr: float
    rho: float
    seed: int


def key(stage: str, arm: str, one: Experiment) -> Key:
    """Return the key of a run; studies always say how many steps it has."""
    return Key(stage, arm, one.steps or 0, one.lr, one.rho, one.seed)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The finished runs of a task.

    Attributes:
        path: of the file, which is written after every run.
        runs: their numbers.
    """

    path: Path
    runs: dict[Key, Result] = field(default_factory=dict)

    def read(self, path: Path) -> None:
        """Take the runs of a file as finished.

        Raises:
            ValueError: the file has other columns, or no number where one belongs.
        """
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            if (names := rows.fieldnames) is None or tuple(names[:6]) != Key._fields:
                raise ValueError(f"its first columns must be {', '.join(Key._fields)}")
            for row in rows:
                of, numbers = _parsed(row)
                self.runs[of] = numbers

    def add(self, of: Key, result: Result) -> None:
        """Write down a run that is finished."""
        self.runs[of] = {k: v for k, v in result.items() if _is_number(k, v)}
        names = dict.fromkeys(name for one in self.runs.values() for name in one)
        rows = [
            {**of._asdict(), **{name: one.get(name) for name in names}}
            for of, one in self.runs.items()
        ]
        write(self.path, Table.of(rows).csv())

    def tested(self, arm: str, task: Experiment, per_epoch: int) -> Setting | None:
        """Return the settings with which an arm was tested; None if it was not.

        Args:
            arm: its name.
            task: the base's run, with the task's length and rate.
            per_epoch: steps of an epoch.
        """
        for of in self.runs:
            if (of.stage, of.arm) == ("test", arm):
                length = of.steps / (task.epochs * per_epoch)
                return Setting(length, of.lr / task.lr, of.rho)
        return None


def _parsed(row: dict[str, str]) -> tuple[Key, Result]:
    stage, arm, steps, lr, rho, seed, *rest = row.values()
    names = list(row)[6:]
    numbers = {n: float(text) for n, text in zip(names, rest, strict=True) if text}
    whole = {n: int(x) if x.is_integer() else x for n, x in numbers.items()}
    return Key(stage, arm, int(steps), float(lr), float(rho), int(seed)), whole


def _is_number(name: str, value: Any) -> bool:
    return isinstance(value, int | float) and name not in Key._fields

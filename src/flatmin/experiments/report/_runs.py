"""Read the runs of an arm."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatmin.experiments.config import Experiment
from flatmin.experiments.errors import BadInput
from flatmin.experiments.runs.files import inside
from flatmin.experiments.runs.record import Run
from flatmin.experiments.runs.stored import Config

#: Fields in which runs of one experiment may differ.
_ELSEWHERE = ("seed", "device")


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run, finished or not.

    Attributes:
        folder: where it is now.
        config: its experiment and number of processes.
        starts: one record per start: versions, machine, command.
        epochs: those that were tested.
        result: None while the run is unfinished.
    """

    folder: Path
    config: Config
    starts: tuple[dict[str, Any], ...]
    epochs: tuple[dict[str, Any], ...]
    result: dict[str, Any] | None

    @property
    def smoke(self) -> bool:
        """Whether a command that started it has ``--smoke``."""
        return any("--smoke" in (one.get("command") or ()) for one in self.starts)


def runs_of(arm: Path) -> tuple[StoredRun, ...]:
    """Read the runs in the folder of an arm, in order of their seeds.

    Raises:
        BadInput: a folder cannot be read, a file is damaged, or runs differ in more
            than the seed.
    """
    seeds = [one for one in inside(arm) if re.fullmatch(r"seed-\d+", one.name)]
    seeds.sort(key=lambda folder: int(folder.name.removeprefix("seed-")))
    runs = tuple(_read(run) for run in map(Run, seeds) if run.begun or run.finished)
    for run in runs[1:]:
        fields = differences(runs[0].config.experiment, run.config.experiment)
        if fields:
            raise BadInput(
                f"{runs[0].folder} and {run.folder} are runs of two experiments "
                f"(different: {', '.join(fields)}). Keep them in two folders of runs."
            )
    return runs


def differences(
    one: Experiment,
    other: Experiment,
    fields: Iterable[str] = Experiment.model_fields,
) -> list[str]:
    """List the fields in which two experiments differ, except seed and device."""
    names = (name for name in fields if name not in _ELSEWHERE)
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def _read(run: Run) -> StoredRun:
    return StoredRun(
        folder=run.folder,
        config=run.config,
        starts=tuple(run.starts()),
        epochs=tuple(run.metrics()),
        result=run.result(),
    )

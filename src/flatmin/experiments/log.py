"""Where a run's numbers go: its folder, and who watches it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor

from flatmin.experiments.progress import Watcher
from flatmin.experiments.runs.checkpoint import clear
from flatmin.experiments.runs.record import Run


class Log:
    """The files of a run that is going on; only the first process writes them.

    Args:
        fabric: of the processes.
        folder: the run's own.
        step: where training resumes; lines of later steps are removed.
        watcher: gets every line.

    Attributes:
        last: the last line since training resumed.
    """

    def __init__(
        self, fabric: Fabric, folder: Path, step: int, watcher: Watcher
    ) -> None:
        self.folder, self.watcher = folder, watcher
        self.last: dict[str, Any] = {}
        self._run, self._writes = Run(folder), fabric.is_global_zero
        if self._writes:
            self._run.keep(_until(step, folder))

    def keep_labels(self, y: Tensor) -> None:
        """Store the labels that are trained ``[n]``."""
        if self._writes:
            self._run.keep_labels(y)

    def add(self, line: dict[str, Any]) -> None:
        """Write a line of metrics."""
        self.last = _finite(line)
        if self._writes:
            self._run.append(self.last)
            self.watcher.line(self.last)

    def finish(
        self,
        weights: dict[str, Tensor],
        predicted: dict[str, Tensor],
        result: dict[str, Any],
    ) -> dict[str, Any]:
        """Store the result, with which the run is finished; remove the checkpoint.

        Returns:
            The result, as it is stored.
        """
        result = _finite(result)
        if self._writes:
            self._run.keep_predictions(predicted)
            self._run.finish(weights, result)
            clear(self.folder)
        return result

    def close(self) -> None:
        """Close the run's files."""
        self._run.close()


def in_step(one: Path, other: Path, step: int) -> bool:
    """Whether two runs have tests of the same steps, up to one."""
    mine, theirs = _until(step, one), _until(step, other)
    return [line["step"] for line in mine] == [line["step"] for line in theirs]


def _until(step: int, folder: Path) -> list[dict[str, Any]]:
    return [line for line in Run(folder).metrics() if line["step"] <= step]


def _finite(numbers: dict[str, Any]) -> dict[str, Any]:
    """Replace numbers that are not finite by None, because JSON has no NaN."""
    return {
        name: None if isinstance(x, float) and not math.isfinite(x) else x
        for name, x in numbers.items()
    }

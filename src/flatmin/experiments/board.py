"""The metrics of a run as TensorBoard shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Board:
    """Event files in ``FOLDER/tensorboard``.

    Args:
        folder: the run's own.
        step: where training goes on; what an interrupted start wrote after it is
            hidden.
    """

    def __init__(self, folder: Path, step: int) -> None:
        # It takes a second to import, and only the first process writes.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder / "tensorboard", purge_step=step + 1)

    def add(self, line: dict[str, Any]) -> None:
        """Write the numbers of a line of metrics, at its step."""
        for name, value in line.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._writer.close()

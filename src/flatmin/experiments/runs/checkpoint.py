"""The files of a run's checkpoint; what they hold is `flatmin.experiments.state`'s.

FOLDER/
checkpoint.json             which step, and of how many processes
checkpoint/step-120/rank-0.pt ...

A step's files are written first, then ``checkpoint.json`` names them, then older ones
go: whichever process is killed at whatever moment, the file that is named is whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from flatmin.experiments.errors import BadInput
from flatmin.experiments.runs.files import read_json, write_json

#: What to do about a damaged checkpoint.
_REMOVE = "and this run starts from its beginning."


def part(folder: Path, step: int, rank: int) -> Path:
    """The file of one process, in a run's folder."""
    return folder / "checkpoint" / f"step-{step}" / f"rank-{rank}.pt"


def commit(folder: Path, step: int, world: int) -> None:
    """Name the step whose files are all written, and remove older ones."""
    write_json(_index(folder), {"step": step, "world": world})
    mine = part(folder, step, 0).parent
    for old in mine.parent.iterdir():
        if old != mine:
            shutil.rmtree(old)


def committed(folder: Path, world: int) -> int | None:
    """Which step the checkpoint is of, if there is one.

    Raises:
        BadInput: its file is damaged, or another number of processes wrote it.
    """
    path = _index(folder)
    if not path.exists():
        return None
    found: Any = read_json(path)
    try:
        step, theirs = int(found["step"]), int(found["world"])
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{path} is damaged. Remove it, {_REMOVE}") from None
    if theirs != world:
        raise BadInput(
            f"{folder} was begun by {theirs} processes, and now there are {world}. "
            f"Continue with {theirs}, or choose another --out."
        )
    return step


def damaged(folder: Path, path: Path, error: Exception) -> BadInput:
    """What to say of a part that cannot be read."""
    kind = type(error).__name__
    return BadInput(f"{path} is damaged ({kind}). Remove {_index(folder)}, {_REMOVE}")


def clear(folder: Path) -> None:
    """Forget a finished run's checkpoint."""
    _index(folder).unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def _index(folder: Path) -> Path:
    return folder / "checkpoint.json"

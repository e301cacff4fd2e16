"""The files of a run's checkpoint; `flatmin.experiments.state` defines the contents.

FOLDER/
checkpoint.json             which step, and of how many processes
checkpoint/step-120/rank-0.pt ...

A step's files are written first, then ``checkpoint.json`` names them, then older ones
are removed. The files that are named are therefore whole, even if a process is killed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from flatmin.experiments.errors import BadInput
from flatmin.experiments.runs.files import read_json, write_json

#: What messages advise about a damaged checkpoint.
_REMOVE = "and this run starts from its beginning."


def part(folder: Path, step: int, rank: int) -> Path:
    """Return the path of one process's file in a run's folder."""
    return folder / "checkpoint" / f"step-{step}" / f"rank-{rank}.pt"


def commit(folder: Path, step: int, world: int) -> None:
    """Make a step whose files are all written the checkpoint; remove older ones."""
    write_json(_index(folder), {"step": step, "world": world})
    mine = part(folder, step, 0).parent
    for old in mine.parent.iterdir():
        if old != mine:
            shutil.rmtree(old)


def committed(folder: Path, world: int) -> int | None:
    """Return the step of the checkpoint; None if there is none.

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
    """Return the error about a part that cannot be read."""
    kind = type(error).__name__
    return BadInput(f"{path} is damaged ({kind}). Remove {_index(folder)}, {_REMOVE}")


def clear(folder: Path) -> None:
    """Remove a finished run's checkpoint."""
    _index(folder).unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def _index(folder: Path) -> Path:
    return folder / "checkpoint.json"

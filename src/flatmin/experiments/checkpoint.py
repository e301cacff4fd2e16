"""Where an interrupted run continues: one file per process, complete or not there.

FOLDER/
checkpoint.json             which step, and of how many processes
checkpoint/step-120/rank-0.pt ...

A step's files are written first, then ``checkpoint.json`` names them, then older ones
go: whichever process is killed at whatever moment, the file that is named is whole.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from flatmin.experiments.errors import BadInput
from flatmin.experiments.store import read_json, write, write_json


def save(fabric: Fabric, folder: Path, step: int, state: dict[str, Any]) -> None:
    """Remember where all processes are; each calls this with what is its own.

    Raises:
        OSError: the disk is full, or cannot be written to. The checkpoint before is
            still there.
    """
    home = folder / "checkpoint"
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path = home / f"step-{step}" / f"rank-{fabric.global_rank}.pt"
    write(path, buffer.getvalue())
    fabric.barrier()
    if fabric.is_global_zero:
        found = {"step": step, "world": fabric.world_size}
        write_json(folder / "checkpoint.json", found)
        for old in home.iterdir():
            if old.name != f"step-{step}":
                shutil.rmtree(old)


def load(fabric: Fabric, folder: Path) -> dict[str, Any] | None:
    """What this process remembered; None at the beginning of a run.

    Raises:
        BadInput: a file is damaged, or other processes wrote it.
    """
    found = read_json(folder / "checkpoint.json")
    if found is None:
        return None
    try:
        step, world = int(found["step"]), int(found["world"])
    except (KeyError, TypeError, ValueError):
        raise BadInput(
            f"{folder / 'checkpoint.json'} is damaged. Remove it, and this run starts "
            "from its beginning."
        ) from None
    if world != fabric.world_size:
        raise BadInput(
            f"{folder} was begun by {world} processes, and now there are "
            f"{fabric.world_size}. Continue with {world}, or choose another --out."
        )
    path = folder / "checkpoint" / f"step-{step}" / f"rank-{fabric.global_rank}.pt"
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise BadInput(
            f"{path} is damaged ({type(error).__name__}). Remove "
            f"{folder / 'checkpoint.json'}, and this run starts from its beginning."
        ) from None


def clear(folder: Path) -> None:
    """Forget a finished run's checkpoint."""
    (folder / "checkpoint.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)

"""Run folders: every file whole or absent, whatever moment the program is killed at.

FOLDER/
config.json          of a run, or of a comparison, and the fingerprint of its data
environment.jsonl    one line per start: versions, machine, command
metrics.jsonl        of a run: one line per test
weights.safetensors, result.json   when it is finished
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

import flatmin
from flatmin.diagnostics._files import write
from flatmin.experiments.errors import BadInput

__all__ = [
    "Busy",
    "RunStore",
    "claim",
    "in_turn",
    "locked",
    "read_json",
    "write",
    "write_json",
]

#: What a start that was killed at once may have left.
_OWN = {".lock", ".config.json.part"}


class Busy(BadInput):
    """Another process is writing to a folder."""


def write_json(path: Path, value: Any) -> None:
    """`write` for JSON."""
    write(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file; None if there is no file.

    Raises:
        BadInput: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise BadInput(f"{path} is damaged. Remove it and start again.") from None


def claim(folder: Path, mine: dict[str, Any]) -> None:
    """Make ``folder`` the home of what has these settings, or find that it already is.

    Args:
        folder: of a comparison, or of a run.
        mine: what decides its numbers: settings by name, under one key or more, and
            the fingerprint of the data under ``"data_sha256"``.

    Raises:
        BadInput: it holds another one, or something else.
    """
    path = folder / "config.json"
    theirs = read_json(path)
    if theirs is None:
        if folder.exists() and any(p.name not in _OWN for p in folder.iterdir()):
            raise BadInput(
                f"{folder} is not empty and no run folder. Choose another with --out."
            )
        write_json(path, mine)
    elif theirs != mine:
        different = ", ".join(_differences(theirs, mine)) or "something"
        raise BadInput(
            f"{folder} holds another experiment (different: {different}). "
            "Choose another folder with --out."
        )
    _note_environment(folder / "environment.jsonl")


def _differences(theirs: Any, mine: dict[str, Any]) -> list[str]:
    """The names of what differs."""
    old = theirs if isinstance(theirs, dict) else {}
    names: list[str] = []
    for key, value in mine.items():
        if isinstance(value, dict):
            names += _differences(old.get(key), value)
        elif old.get(key) != value:
            names.append("the images" if key == "data_sha256" else key)
    return names


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else writes into ``folder`` meanwhile; a killed process lets go of it.

    Raises:
        Busy: another process does.
        BadInput: the folder cannot be made.
    """
    with _lock(folder) as file:
        if not _held(file, wait=False):
            raise Busy(f"another process is writing to {folder}.")
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """As `locked`, but waits until the others are done, however long that takes.

    Raises:
        BadInput: the folder cannot be made.
    """
    with _lock(folder) as file:
        _held(file, wait=True)
        yield


def _lock(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / ".lock").open("w")
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}.") from None


def _held(file: IO[str], *, wait: bool) -> bool:
    """Whether this process has the lock now."""
    try:
        import fcntl
    except ImportError:  # Windows has no flock
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class RunStore:
    """The files of one training run."""

    folder: Path

    def result(self) -> dict[str, Any] | None:
        """The finished run's result; None while it is unfinished.

        Raises:
            BadInput: the file is damaged.
        """
        path = self.folder / "result.json"
        result = read_json(path)
        if result is not None and not isinstance(result, dict):
            raise BadInput(f"{path} is damaged. Remove it and start again.")
        return result

    def metrics(self) -> list[dict[str, Any]]:
        """The epochs so far; a last line that was cut short is none.

        Raises:
            BadInput: another line is damaged.
        """
        path = self.folder / "metrics.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        epochs: list[dict[str, Any]] = []
        for k, line in enumerate(lines, 1):
            epoch = _record(line)
            if epoch is not None:
                epochs.append(epoch)
            elif k < len(lines):
                raise BadInput(
                    f"{path}, line {k}, is damaged. Remove the line and start again."
                )
        return epochs

    def append(self, epoch: dict[str, Any]) -> None:
        """Add an epoch."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(epoch) + "\n")

    def keep(self, epochs: list[dict[str, Any]]) -> None:
        """Forget all epochs but these; what came after a checkpoint comes again."""
        text = "".join(json.dumps(epoch) + "\n" for epoch in epochs)
        write(self.folder / "metrics.jsonl", text)

    def finish(self, weights: dict[str, Tensor], result: dict[str, Any]) -> None:
        """Store the trained weights and the result; the run is finished."""
        cpu = {name: w.detach().cpu().contiguous() for name, w in weights.items()}
        write(self.folder / "weights.safetensors", save(cpu))
        write_json(self.folder / "result.json", result)

    def weights(self) -> dict[str, Tensor]:
        """The trained weights.

        Raises:
            BadInput: the file is missing or damaged.
        """
        path = self.folder / "weights.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise BadInput(
                f"{path} cannot be read ({error}). Remove its folder and start again."
            ) from None


def _record(line: bytes) -> dict[str, Any] | None:
    """The epoch in a line of metrics, if it is one."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "epoch" in found else None


def _note_environment(path: Path) -> None:
    line = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "flatmin": flatmin.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")

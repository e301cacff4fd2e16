"""Locks on folders: one process writes at a time; a killed process frees its lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flatmin.experiments.errors import BadInput

#: The file in a folder on which the lock is; it stays there.
LOCK = ".lock"


class Busy(BadInput):
    """Another process is writing to a folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others from writing into a folder, within the block.

    Raises:
        Busy: another process is writing there.
        BadInput: the folder cannot be made.
    """
    try:
        held = _lock(folder).acquire(timeout=0)
    except Timeout:
        raise Busy(f"another process is writing to {folder}.") from None
    with held:
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Wait until no other process writes into a folder, then lock it as `locked` does.

    Raises:
        BadInput: the folder cannot be made.
    """
    with _lock(folder):
        yield


def _lock(folder: Path) -> FileLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}.") from None
    return FileLock(folder / LOCK)


def is_locked(folder: Path) -> bool:
    """Whether another process is writing into a folder at this moment."""
    if not (folder / LOCK).is_file():
        return False
    try:
        with locked(folder):
            return False
    except Busy:
        return True

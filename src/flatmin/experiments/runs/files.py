"""Read JSON files, with one message for all damage; write atomically; lock folders."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from flatmin import __version__
from flatmin.diagnostics._files import write
from flatmin.experiments.errors import BadInput, refuse_unreadable

__all__ = ["check", "differences", "read_json", "read_lines", "write", "write_json"]

Record = TypeVar("Record", bound=BaseModel)

#: What messages advise about a damaged file that the program can make again.
REMOVE = "Remove it and start again."


#: What fingerprints are of, for messages.
_FINGERPRINTS = {
    "data_sha256": "the images",
    "weights_sha256": "the file of weights",
}

#: In place of an option that one of two configurations does not have.
_ABSENT = object()

#: The file in a folder on which the lock is; it stays there.
LOCK = ".lock"


def check_outside(folder: Path, images: Path) -> None:
    """Refuse to write among images, where pictures of a report would become some.

    Args:
        folder: of runs.
        images: the folder of the images.

    Raises:
        BadInput: one is inside of the other.
    """
    if folder.resolve().is_relative_to(images.resolve()):
        raise BadInput(
            f"{folder} is inside of the images' folder {images}, and what is written "
            "there would become images. Choose a place outside of it with --out."
        )


def walked(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield a folder and those below it, each with the paths in it, in order.

    Symbolic links are not followed. A folder that does not exist yields nothing.

    Raises:
        BadInput: one cannot be read, for instance because it is another user's.
    """
    if not folder.is_dir():
        return
    for place, folders, files in os.walk(folder, onerror=refuse_unreadable):
        here = Path(place)
        yield here, [here / name for name in sorted([*folders, *files])]


def inside(folder: Path) -> list[Path]:
    """Return the paths in a folder, in order; none if it does not exist.

    Raises:
        BadInput: it cannot be read.
    """
    return next((paths for _, paths in walked(folder)), [])


def sha256(path: Path) -> str:
    """Return the fingerprint of a file.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}.") from None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, advice: str = REMOVE) -> Any:
    """Read a JSON file; None if there is no file.

    Args:
        path: of the file.
        advice: what to do if it is damaged.

    Raises:
        BadInput: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if found is None:
        raise BadInput(f"{path} is damaged. {advice}")
    return found


def check(kind: type[Record], value: Any, place: object, advice: str) -> Record:
    """Make a record of a value that was read from a file.

    Args:
        kind: of the record.
        value: what was read.
        place: the file, and the line if it has many.
        advice: what to do if the value does not fit.

    Raises:
        BadInput: a field is missing, unknown or has a wrong value; the message names
            it.
    """
    if not isinstance(value, dict):
        raise BadInput(f"{place} is damaged. {advice}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        unknown = [one for one in error.errors() if one["type"] == "extra_forbidden"]
        if unknown:
            raise _of_another_version(place, unknown[0]["loc"]) from None
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        reason = reason[:1].lower() + reason[1:]
        raise BadInput(f"{place} is damaged ({field}: {reason}). {advice}") from None


def _of_another_version(place: object, field: Sequence[str | int]) -> BadInput:
    """Return the error about a file with a field that this version does not have."""
    name = ".".join(map(str, field))
    return BadInput(
        f"{place} has the field {name}, which flatmin {__version__} does not know: "
        "another version wrote it. Use that version for this folder."
    )


def read_lines(path: Path, kind: type[BaseModel]) -> list[dict[str, Any]]:
    """Read a file of JSON lines, each checked to be a record of a kind.

    A last line that was cut short when the program was killed is left out. A file that
    does not exist has no lines.

    Raises:
        BadInput: another line is damaged; the message has its number.
    """
    *lines, rest = path.read_bytes().split(b"\n") if path.exists() else [b""]
    records: list[dict[str, Any]] = []
    for k, line in enumerate(lines, 1):
        records.append(_line(line, kind, f"{path}, line {k},"))
    return records + _whole(rest, kind)


def _line(line: bytes, kind: type[BaseModel], place: str) -> dict[str, Any]:
    advice = "Remove the line and start again."
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInput(f"{place} is damaged. {advice}") from None
    check(kind, found, place, advice)
    return found


def _whole(rest: bytes, kind: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the last line if only its line end is missing, else nothing."""
    try:
        return [_line(rest, kind, "the last line")]
    except BadInput:
        return []


def differences(theirs: BaseModel, mine: BaseModel) -> list[str]:
    """Name the fields in which a stored configuration differs from another.

    Args:
        theirs: the stored one. Fields that an older version did not have must have
            their defaults.
        mine: the other.
    """
    return _different(theirs.model_dump(mode="json"), mine.model_dump(mode="json"))


def _different(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    names: list[str] = []
    for key in {**mine, **theirs}:
        one, other = theirs.get(key, _ABSENT), mine.get(key, _ABSENT)
        deep = key not in _FINGERPRINTS
        if deep and isinstance(one, dict) and isinstance(other, dict):
            names += _different(one, other)
        elif one != other:
            names.append(_FINGERPRINTS.get(key, key))
    return names


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

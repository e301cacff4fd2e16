"""The records of losses along one and two directions, and their files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from flatmin.diagnostics import _files as files
from flatmin.diagnostics._record import plain


class _Record:
    """Converts to and from plain values and JSON files."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all fields in types that JSON has; infinity and NaN become words."""
        values = asdict(cast("Any", self))
        return {"kind": type(self).__name__} | {k: plain(v) for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the record that `to_dict` was called on.

        Raises:
            ValueError: the values are another kind of record, unfinished, or damaged.
        """
        given = dict(values)
        kind = given.pop("kind", None)
        if kind != cls.__name__:
            raise ValueError(f"expected the record of a {cls.__name__}, got {kind!r}.")
        try:
            return cls(**{name: _read(name, value) for name, value in given.items()})
        except (TypeError, ValueError) as error:
            raise ValueError(f"the record of a {kind} is damaged: {error}.") from None

    def save(self, path: str | Path) -> None:
        """Write the record as JSON; the file is whole or absent at any moment."""
        write(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the record in a file.

        Raises:
            ValueError: the file holds something else.
        """
        return cls.from_dict(read(Path(path)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line(_Record):
    """Losses at ``w + a u``.

    Attributes:
        a: the coordinates, in lengths of ``u``.
        losses: one per coordinate; NaN and infinity are the model's own results.
        labels: what the direction is, in words.
        settings: what else the losses depend on.
        fingerprint: of weights, buffers, direction, data and settings.
    """

    a: tuple[float, ...]
    losses: tuple[float, ...]
    labels: tuple[str, ...] = ("u",)
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if len(self.losses) != len(self.a) or len(self.labels) != 1:
            raise ValueError(
                f"a line of {len(self.a)} coordinates needs as many losses and one "
                f"label, got {len(self.losses)} and {len(self.labels)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane(_Record):
    """Losses at ``w + a u + b v``.

    Attributes:
        a: the coordinates along ``u``, in lengths of it.
        b: the coordinates along ``v``.
        losses: ``losses[i][j]`` at ``b[i]`` and ``a[j]``; NaN and infinity are the
            model's own results.
        labels: what the directions are, in words.
        marks: named places in the plane: name, ``a``, ``b``.
        settings: what else the losses depend on.
        fingerprint: of weights, buffers, directions, data and settings.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    labels: tuple[str, ...] = ("u", "v")
    marks: tuple[tuple[str, float, float], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    fingerprint: str = ""

    def __post_init__(self) -> None:
        rows = {len(row) for row in self.losses}
        if len(self.losses) != len(self.b) or rows != {len(self.a)}:
            raise ValueError(
                f"a plane of {len(self.b)} x {len(self.a)} coordinates needs as many "
                f"losses, got {len(self.losses)} rows of {sorted(rows)}"
            )
        check_labels(self.labels)


def check_labels(labels: Sequence[str]) -> None:
    """Refuse labels of a plane that are not two.

    Raises:
        ValueError: they are more or fewer.
    """
    if len(labels) != 2:
        raise ValueError(f"a plane has two labels, got {len(labels)}")


def number(value: Any) -> float:
    """Return a float, which `plain` may have turned into a word."""
    if isinstance(value, str) and value not in {"nan", "inf", "-inf"}:
        raise ValueError(f"{value!r} is no number")
    return float(value)


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON that every parser takes, in one stroke."""
    files.write(path, json.dumps(values, allow_nan=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        values = json.loads(path.read_text())
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no record. Remove it, or give another file.")
    return cast("dict[str, Any]", values)


def _read(name: str, value: Any) -> Any:
    """Convert a field to the type that the records have."""
    if name in {"a", "b"}:
        return tuple(number(x) for x in value)
    if name == "losses":
        return tuple(_read("a", x) if isinstance(x, list) else number(x) for x in value)
    if name == "marks":
        return tuple((str(of), number(a), number(b)) for of, a, b in value)
    return tuple(map(str, value)) if name == "labels" else value

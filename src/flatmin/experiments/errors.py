"""The error that becomes one line and exit code 2, and paths as users give them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

#: Most characters of a given value that a message repeats.
_MOST = 200


class BadInput(ValueError):
    """What the user gave cannot be used; the message says what to do instead."""


def shortened(text: str, most: int = _MOST) -> str:
    """Cut the middle out of a text that has more than ``most`` characters."""
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def shown(value: object) -> str:
    """Return a value as messages repeat it."""
    return shortened(repr(value))


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name, with the nearest known one, or all."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = (
        f"did you mean {near[0]!r}?"
        if near
        else f"known: {shortened(', '.join(known), 700)}."
    )
    return f"unknown {kind} {shown(name)}; {hint}"


def refuse_unreadable(error: OSError) -> None:
    """Refuse a folder that cannot be listed; the ``onerror`` of `os.walk`.

    Raises:
        BadInput: always.
    """
    raise BadInput(f"cannot read {error.filename!r}: {error.strerror}.") from None


def without_transformers(what: str) -> BadInput:
    """Return the error that something needs transformers, which is not there."""
    return BadInput(
        f"{what} need transformers, which is not installed. Use pip install "
        "'flatmin[transformers]'."
    )


def expanded(name: str) -> Path:
    """Return a path in which ``~`` and ``~user`` are replaced by a home folder.

    Raises:
        BadInput: the name is empty, or nobody has this home folder.
    """
    if not name:
        raise BadInput("a path is empty. Write '.' for the folder you are in.")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise BadInput(f"nobody has the home folder in {shown(name)}.") from None

"""The error that the command line turns into one line and exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """What the user gave cannot be used; the message says what to do instead."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """What to say of a name that nothing has: the nearest, or all there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
    return f"unknown {kind} {name!r}; {hint}"

"""Paths as the command line and ``--set`` are given them."""

from __future__ import annotations

from pathlib import Path

from flatmin.experiments.errors import BadInput, shown


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

"""Print in any encoding, and as JSON."""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from rich.console import Console

from flatmin.experiments.table import printable

#: The name of `_spelled` for Python's streams.
_ERRORS = "flatmin"


def fit_encoding() -> None:
    """Let stdout and stderr replace signs their encoding lacks: ``±`` by ``+-``.

    rich, typer and Python's warnings then print every sign instead of failing at it.
    """
    codecs.register_error(_ERRORS, _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def open_streams() -> None:
    """Give a process that was started without stdout or stderr one that is nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return printable(missing, error.encoding), error.end


def say(line: str) -> None:
    """Print a line unchanged, however long."""
    Console(emoji=False).print(line, highlight=False, markup=False, soft_wrap=True)


def print_json(document: Any) -> None:
    """Print JSON; a number that is not finite is null."""
    say(json.dumps(_plain(document), indent=2))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def silence() -> None:
    """Replace a stdout that was closed, so that Python's last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

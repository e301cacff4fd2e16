"""Progress in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_OPEN: ContextVar[Progress | None] = ContextVar("open", default=None)


@contextmanager
def bars(console: Console) -> Iterator[Progress]:
    """A bar per task, with the time that is left and the task's ``note``."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as progress:
        token = _OPEN.set(progress)
        try:
            yield progress
        finally:
            _OPEN.reset(token)


@contextmanager
def open_bars() -> Iterator[Progress]:
    """The bars that are open; new ones on stderr, if it is a terminal, if none are.

    A terminal cannot show two displays at once.
    """
    progress = _OPEN.get()
    if progress is not None:
        yield progress
        return
    console = Console(stderr=True)
    console.quiet = not console.is_terminal
    with bars(console) as progress:
        yield progress


def note(line: dict[str, Any]) -> str:
    """What a bar says of a line of a run's metrics."""
    words = {"loss": "train_loss", "error %": "test_error", "sharpness": "sharpness"}
    found = {word: line.get(name) for word, name in words.items()}
    return "  ".join(f"{word} {x:.3f}" for word, x in found.items() if x is not None)

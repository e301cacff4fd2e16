"""Progress in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

_OPEN: ContextVar[Progress | None] = ContextVar("open", default=None)


@dataclass(frozen=True, slots=True)
class _Name:
    """A text of which a narrow terminal shows the end: ``...sam/x1/seed-0``."""

    text: str

    def __rich_measure__(
        self, console: Console, options: ConsoleOptions
    ) -> Measurement:
        del console, options
        return Measurement(1, len(self.text))

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[Text]:
        text, room = self.text, options.max_width
        shown = (
            text if len(text) <= room else f"...{text[max(len(text) - room + 3, 0) :]}"
        )
        yield Text(shown, no_wrap=True, overflow="crop")


class _NameColumn(ProgressColumn):
    """The description of a task; it gives way to all other columns."""

    def render(self, task: Task) -> _Name:
        return _Name(task.description)


class _NoteColumn(ProgressColumn):
    """The note of a task; it gives way to the count and the times."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="crop")


@contextmanager
def bars(console: Console) -> Iterator[Progress]:
    """A bar per task, with the time that is left and the task's ``note``.

    Where the terminal is narrow, names and notes are cut; count and times are not.
    """
    whole = Column(no_wrap=True)
    spinner = "dots" if console.encoding.startswith("utf") else "line"
    with Progress(
        SpinnerColumn(spinner, table_column=whole),
        _NameColumn(),
        BarColumn(min(40, console.width // 8), table_column=whole),
        MofNCompleteColumn(table_column=whole),
        TimeElapsedColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole),
        _NoteColumn(),
        console=console,
    ) as progress:
        token = _OPEN.set(progress)
        try:
            yield progress
        finally:
            _OPEN.reset(token)


@contextmanager
def open_bars() -> Iterator[Progress]:
    """Yield the bars that are open, because a terminal cannot show two displays.

    If none are open, yield new ones on stderr, which show only in a terminal.
    """
    progress = _OPEN.get()
    if progress is not None:
        yield progress
        return
    console = Console(stderr=True, emoji=False)
    console.quiet = not console.is_terminal
    with bars(console) as progress:
        yield progress


class Watcher:
    """Callbacks that follow a run; here they do nothing."""

    def step(self, step: int, steps: int) -> None:
        """Called after each step, on every process, with its number and the total."""

    def line(self, line: dict[str, Any]) -> None:
        """Called after each test, on the first process, with its line of metrics."""

    def says(self, words: str) -> None:
        """Called after training, on every process: ``measuring sharpness``."""


class Bar(Watcher):
    """A bar that shows the steps of a run, and its last line of metrics.

    Args:
        progress: the bars to which it is added.
        name: of the run.
    """

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=None, note="")

    def step(self, step: int, steps: int) -> None:
        """Show how far the run is."""
        self._progress.update(self._task, completed=step, total=steps)

    def line(self, line: dict[str, Any]) -> None:
        """Show loss, error and sharpness."""
        self._progress.update(self._task, note=note(line), refresh=True)

    def says(self, words: str) -> None:
        """Show what is done now."""
        self._progress.update(self._task, note=words, refresh=True)

    def close(self, words: str) -> None:
        """Replace the bar by a line of text."""
        self._progress.remove_task(self._task)
        self._progress.console.print(words, highlight=False)


def note(line: dict[str, Any]) -> str:
    """Return what a bar shows of a line of metrics."""
    words = {
        "loss": "train_loss",
        "error %": "test_error",
        "MSE": "test_mse",
        "sharpness": "sharpness",
    }
    found = {word: line.get(name) for word, name in words.items()}
    return "  ".join(f"{word} {x:.3f}" for word, x in found.items() if x is not None)

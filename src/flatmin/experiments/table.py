"""One table, written for the terminal, for documents, for programs and for pages."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from markupsafe import Markup
from rich import table as rich
from rich.box import SIMPLE_HEAD, Box
from rich.console import Console, ConsoleOptions
from rich.text import Text

#: The lines of `rich.box.SIMPLE_HEAD` for a terminal that has only ASCII.
_ASCII = Box(str(SIMPLE_HEAD).replace("─", "-"), ascii=True)

#: What a terminal shows instead of a sign that its encoding lacks.
_INSTEAD = {"±": "+-", "≤": "<=", "≥": ">=", "…": "...", "→": "->"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a `Table`.

    Attributes:
        heading: what stands above it.
        short: the heading in the terminal; by default ``heading``.
        left: align the cells to the left, as words are; numbers stand right.
        hidden: leave the column out in the terminal, which is narrow.
    """

    heading: str
    short: str = ""
    left: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table and its four forms.

    A cell is a text, or a value as it is: a number, a bool, None (an empty cell) or a
    sequence (its items, separated by spaces). ``console.print(table)`` writes it to the
    terminal.

    Attributes:
        title: above the table in the terminal, and its name in a page.
        columns: from left to right.
        rows: a cell per column in each.
        caption: below the table in the terminal.
        labels: how many of the first columns name the row. The terminal and narrow
            pages show them in one cell: ``40 %, SAM``.
        sections: the rows that start a new section, counted from 0.
        strong: the rows that are bold, counted from 0.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.

    Example:
        >>> columns = (Column("method", left=True), Column("test error %"))
        >>> table = Table("digits", columns, (("SAM", "1.25 ± 0.10"),))
        >>> print(table.markdown(), end="")
        | method | test error % |
        | --- | ---: |
        | SAM | 1.25 ± 0.10 |
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ""
    labels: int = 1
    sections: tuple[int, ...] = ()
    strong: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"a row needs {len(self.columns)} cells, one per column, got "
                    f"{len(row)}: {row}."
                )

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]], title: str = "") -> Self:
        """Make a table of records, with a column per name in the first of them."""
        names = tuple(records[0]) if records else ()
        rows = tuple(tuple(one[name] for name in names) for one in records)
        return cls(title, tuple(map(Column, names)), rows)

    @property
    def texts(self) -> list[list[str]]:
        """The cells as they are shown."""
        return [[_text(cell) for cell in row] for row in self.rows]

    def markdown(self) -> str:
        """The table for documents; empty if it has no rows."""
        if not self.rows:
            return ""
        heading = [plain(column.heading) for column in self.columns]
        rule = ["---" if column.left else "---:" for column in self.columns]
        rows = [
            [f"**{plain(text)}**" if text and k in self.strong else plain(text)
             for text in row]
            for k, row in enumerate(self.texts)
        ]  # fmt: skip
        return "".join(f"| {' | '.join(line)} |\n" for line in (heading, rule, *rows))

    def csv(self) -> str:
        """The table for programs: the headings, then all rows."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([column.heading for column in self.columns])
        writer.writerows(self.texts)
        return file.getvalue()

    def html(self) -> Markup:
        """The table for pages: it scrolls by itself; empty if it has no rows."""
        # Imported late: pages need plotly, and the other three forms do not.
        from flatmin.pictures.html import render

        return render("table.html.j2", table=self)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[rich.Table]:
        """The table for the terminal, without the columns that are hidden there."""
        yield self._terminal(options.encoding)

    def _terminal(self, encoding: str) -> rich.Table:
        drawn = rich.Table(
            title=_shown(self.title, encoding) if self.title else None,
            caption=_shown(self.caption, encoding) if self.caption else None,
            box=SIMPLE_HEAD if encoding.startswith("utf") else _ASCII,
            pad_edge=False,
        )
        rest = [
            k
            for k, column in enumerate(self.columns)
            if k >= self.labels and not column.hidden
        ]
        first = self.columns[: self.labels]
        if first:
            heading = ", ".join(column.short or column.heading for column in first)
            side = "right" if len(first) == 1 and not first[0].left else "left"
            drawn.add_column(_shown(heading, encoding), justify=side, overflow="fold")
        for column in (self.columns[k] for k in rest):
            heading = _shown(column.short or column.heading, encoding)
            side = "left" if column.left else "right"
            drawn.add_column(heading, justify=side, overflow="fold")
        for k, row in enumerate(self.texts):
            if k and k in self.sections:
                drawn.add_section()
            label = [", ".join(row[: self.labels])] if first else []
            cells = (
                _shown(text, encoding) for text in (*label, *(row[i] for i in rest))
            )
            drawn.add_row(*cells, style="bold" if k in self.strong else None)
        return drawn


def printable(text: str, encoding: str) -> str:
    """Replace the signs that an encoding lacks: ``±`` becomes ``+-`` in ASCII.

    Args:
        text: what is to be shown.
        encoding: of the terminal, as `rich.console.Console.encoding`.
    """
    return "".join(_sign(sign, encoding) for sign in text)


def plain(text: str) -> str:
    """Escape a text, so that Markdown finds no HTML and no end of a table's cell."""
    for special in ("\\", "|", "<"):
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())


def _sign(sign: str, encoding: str) -> str:
    try:
        sign.encode(encoding)
    except UnicodeEncodeError:
        return _INSTEAD.get(sign, "?")
    return sign


def counted(n: int, what: str) -> str:
    """Write a number with its noun, such as "1 seed" or "3 seeds"."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _shown(text: str, encoding: str) -> Text:
    """Wrap a text so that rich finds no markup in it."""
    return Text(printable(text, encoding))


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return json.dumps(cell)
    if isinstance(cell, Iterable) and not isinstance(cell, str):
        return " ".join(map(_text, cell))
    return str(cell)

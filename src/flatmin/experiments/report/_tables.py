"""The tables in each format: Markdown, CSV, HTML and the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flatmin.experiments.report import _grids, _scale
from flatmin.experiments.report._grids import Grid
from flatmin.experiments.report._numbers import Report, records

#: What the terminal shows, and how it calls it; cost is left to the files.
_TERMINAL = {
    "quantity": "quantity",
    "ours": "ours",
    "paper": "paper",
    "difference": "diff.",
    "runs": "runs",
    "arm": "arm",
}


def markdown(report: Report) -> str:
    """The tables of a recipe, with its title, notes and scale, for documents."""
    notes = _grids.footnotes(report)
    paragraphs = [
        f"# {_plain(report.recipe.title)}",
        _plain(f"Run with: {'; '.join(_scale.commands(report))}"),
        _plain(_scale.summary(report)),
        _piped(_grids.results(report)),
        _plain(_grids.waiting(report)),
        _plain(_grids.reading(report)),
        "\n".join(f"{k}. {_plain(note)}" for k, note in enumerate(notes, 1)),
        _piped(_grids.arms(report), "All arms"),
        _piped(_grids.quoted(report), "Quoted by the paper"),
        _bullets("Differs from the paper", _scale.scale(report)),
        _bullets("Notes", report.recipe.notes),
    ]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def comma_separated(report: Report) -> str:
    """`records` as CSV: full precision, values of seeds separated by spaces."""
    file = io.StringIO()
    found = records(report)
    names = list(found[0]) if found else ["cell"]
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _field(v) for k, v in record.items()} for record in found)
    return file.getvalue()


def html(grid: Grid, title: str) -> str:
    """A table as HTML that scrolls by itself where the window is narrow.

    Its labels are there twice, apart and in one cell: the page shows either.
    """
    if not grid.lines:
        return ""
    count = len(grid.headings)
    words = grid.words[count:]
    head = _labels(grid.headings, "col") + _cells('th scope="col"', grid.names, words)
    body = "".join(
        f"<tr>{_labels(line[:count], 'row')}{_cells('td', line[count:], words)}</tr>"
        for line in grid.lines
    )
    return (
        '<div class="wide numbers" tabindex="0" role="region" '
        f'aria-label="{escape(title)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def terminal(report: Report) -> Table:
    """For rich; fits 80 columns: what is quoted, and cost, are left to the files."""
    grid = _grids.results(report)
    count = len(grid.headings)
    shown = [k for k, name in enumerate(grid.names, count) if name in _TERMINAL]
    table = Table(
        title=Text(report.recipe.title),
        caption=Text(_scale.warning(report)),
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column(Text(", ".join(grid.headings)), overflow="fold")
    for k in shown:
        side = "left" if grid.words[k] else "right"
        name = _TERMINAL[grid.names[k - count]]
        table.add_column(name, justify=side, overflow="fold")
    for line in grid.lines:
        labels = Text(", ".join(line[:count]))
        table.add_row(labels, *(Text(line[k]) for k in shown))
    return table


def _labels(labels: Sequence[str], scope: str) -> str:
    joint = f'<th scope="{scope}" class="joint">{escape(", ".join(labels))}</th>'
    return joint + "".join(
        f'<th scope="{scope}" class="label">{escape(label)}</th>' for label in labels
    )


def _cells(opening: str, texts: Sequence[str], words: Sequence[bool]) -> str:
    tag = opening.partition(" ")[0]
    kinds = [' class="words"' if one else "" for one in words]
    return "".join(
        f"<{opening}{kind}>{escape(text)}</{tag}>"
        for kind, text in zip(kinds, texts, strict=True)
    )


def _piped(grid: Grid, title: str = "") -> str:
    """A table in Markdown; empty if it has no lines."""
    if not grid.lines:
        return ""
    rule = ["---" if words else "---:" for words in grid.words]
    lines = [(*grid.headings, *grid.names), rule, *grid.lines]
    text = "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)
    return f"## {title}\n\n{text}" if title else text


def _plain(text: str) -> str:
    """Text in which Markdown finds neither HTML nor the end of a table's cell."""
    for special in ("\\", "|", "<"):
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())


def _bullets(title: str, items: Sequence[str]) -> str:
    lines = "\n".join(f"- {_plain(item)}" for item in items)
    return f"## {title}\n\n{lines}" if items else ""


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " ".join("" if one is None else str(one) for one in value)
    return value

"""The numbers as text: Markdown, CSV, HTML and the terminal."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flatmin.experiments.recipes._recipe import Metric
from flatmin.experiments.report._numbers import Arm, Report, Row, records
from flatmin.experiments.report._scale import scale

#: How tables call what cells report.
QUANTITIES: dict[Metric, str] = {
    "test_error": "test error %",
    "test_accuracy": "test accuracy %",
    "top5_error": "top-5 error %",
    "error_sharpness": "error sharpness %",
    "lambda_max": "lambda max",
    "lambda_ratio": "lambda ratio",
}

COLUMNS = (
    "quantity",
    "ours",
    "paper",
    "difference",
    "arm",
    "all arms",
    "gradient examples",
    "seconds",
    "notes",
)


def lines(report: Report) -> list[list[str]]:
    """The table as text, one line per cell, below the headings and `COLUMNS`."""
    notes = footnotes(report)
    return [[*row.cell.labels, *_numbers(row, notes)] for row in report.shown]


def footnotes(report: Report) -> list[str]:
    """The notes of the cells in the table, in order; numbered from 1."""
    notes = (note for row in report.shown for note in row.cell.notes)
    return list(dict.fromkeys(notes))


def waiting(report: Report) -> str:
    """How many cells are not in the table; empty if all are."""
    hidden = len(report.rows) - len(report.shown)
    cells = "cell" if hidden == 1 else "cells"
    return f"{hidden} {cells} pending, without any run yet." if hidden else ""


def markdown(report: Report) -> str:
    """The table of a recipe, with its title, notes and scale, for documents."""
    head = [*report.recipe.headings, *COLUMNS]
    table = [head, ["---"] * len(head), *lines(report)]
    below = [f"{k}. {_plain(note)}" for k, note in enumerate(footnotes(report), 1)]
    paragraphs = [
        f"# {_plain(report.recipe.title)}",
        "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in table),
        _plain(waiting(report)),
        _plain(reading(report)),
        "\n".join(below),
        _bullets("Scale: that of the paper, but for", scale(report)),
        _bullets("Notes:", report.recipe.notes),
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


def html(report: Report) -> str:
    """The table as HTML that scrolls by itself where the window is narrow."""
    names = [*report.recipe.headings, *COLUMNS]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in line)}</tr>"
        for line in lines(report)
    )
    label = escape(f"Table of {report.recipe.title}", quote=True)
    return (
        f'<div class="wide numbers" tabindex="0" role="region" aria-label="{label}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def terminal(report: Report) -> Table:
    """For rich; fits 80 columns: what is quoted, and cost, are left to the files."""
    table = Table(title=Text(report.recipe.title), box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(", ".join(report.recipe.headings), overflow="fold")
    for name in ("ours", "paper", "diff.", "arm"):
        table.add_column(name, justify="right", overflow="fold")
    wanted = [COLUMNS.index(name) for name in ("ours", "paper", "difference", "arm")]
    for row in (row for row in report.shown if row.arms):
        numbers = _numbers(row, [])
        labels = ", ".join(row.cell.labels)
        table.add_row(Text(labels), *(Text(numbers[i]) for i in wanted))
    return table


def reading(report: Report) -> str:
    """What the columns mean."""
    return (
        "Ours: mean over the seeds after the last epoch ± half of Student's 95 % "
        "interval, and in brackets the number of seeds. Paper: ± is its "
        f"{report.recipe.spread}. Difference: ours - paper, in the unit of the "
        "quantity. Quoted: the paper's number is that of others, and nothing is run "
        "for it. Arm: of several, which differ in length (x1, x2) or in what their "
        "names say, the one with the least mean error; all of them stand beside it. "
        "Gradient examples and seconds: per run of that arm."
    )


def _numbers(row: Row, notes: Sequence[str]) -> list[str]:
    arm = row.reported
    several = len(row.arms) > 1
    return [
        QUANTITIES[row.cell.metric],
        _ours(arm) if arm else _pending(row),
        row.cell.paper.text if row.cell.paper else "",
        "" if row.difference is None else f"{row.difference:+.2f}",
        arm.name if arm else "",
        "; ".join(f"{one.name}: {_ours(one)}" for one in row.arms) if several else "",
        f"{arm.gradient_examples:,.0f}" if arm else "",
        f"{arm.seconds:,.1f}" if arm else "",
        ", ".join(str(notes.index(n) + 1) for n in row.cell.notes if n in notes),
    ]


def _pending(row: Row) -> str:
    if not row.arms:
        return "quoted"
    return f"pending, {row.done} of {row.asked} runs"


def _ours(arm: Arm) -> str:
    if not arm.results:
        return "none yet"
    mean, spread = arm.mean, arm.interval
    if not math.isfinite(mean):
        return f"no number ({len(arm.results)})"
    around = "" if spread is None else f" ± {spread:.2f}"
    return f"{mean:.2f}{around} ({len(arm.results)})"


def _plain(text: str) -> str:
    """Text in which Markdown finds neither HTML nor the end of a table's cell."""
    for special in ("\\", "|", "<"):
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())


def _bullets(title: str, items: Sequence[str]) -> str:
    lines = "\n".join(f"- {_plain(item)}" for item in items)
    return f"{title}\n\n{lines}" if items else ""


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " ".join("" if one is None else str(one) for one in value)
    return value

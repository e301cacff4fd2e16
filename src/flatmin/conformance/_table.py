"""Write results as a table for terminals, for documents and for programs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flatmin.conformance._check import Check, Result

Columns = Mapping[str, Sequence[Result]]


def plain(checks: Sequence[Check], columns: Columns) -> str:
    """Write a table for a terminal: a row per check, a column per adapter."""
    head = ["check", "", *columns]
    rows = [head, *([c.id, c.title, *row] for c, row in _rows(checks, columns))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join([*(line.rstrip() for line in lines), "", *_notes(columns)])


def markdown(
    checks: Sequence[Check], columns: Columns, header: Sequence[str] = ()
) -> str:
    """Write the table in Markdown, after the lines of ``header``, with the limits."""
    head = ["check", *columns]
    rows = [[f"{c.id} {c.title}", *row] for c, row in _rows(checks, columns)]
    limits = [f"- {_escaped(f'{c.id}: {c.measured}; {c.limit}')}" for c in checks]
    notes = [f"- {_escaped(note)}" for note in _notes(columns)]
    parts = [
        list(header),
        [_line(head), "| --- " * len(head) + "|", *map(_line, rows)],
        ["What the figures are, and which pass:", "", *limits],
        ["Notes:", "", *notes] if notes else [],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def records(checks: Sequence[Check], columns: Columns) -> list[dict[str, Any]]:
    """Return one record per check and adapter, without NaN and infinity, for JSON."""
    return [
        {
            "adapter": name,
            "check": check.id,
            "title": check.title,
            "measured": check.measured,
            "limit": str(check.limit),
            "verdict": result.verdict,
            "figure": _finite(result.figure),
            "note": result.note,
        }
        for name, results in columns.items()
        for check, result in zip(checks, results, strict=True)
    ]


def cell(result: Result) -> str:
    """Write verdict and figure, or without a figure the kind of error."""
    if result.verdict == "n/a":
        return "n/a"
    if result.figure is None:
        kind, colon, _ = result.note.partition(": ")
        return f"{result.verdict} ({kind})" if colon and " " not in kind else "fail"
    return f"{result.verdict} {result.figure:.2g}"


def write(path: Path, text: str) -> None:
    """Write a file atomically: readers see the old one or the new one."""
    half = path.with_name(f".{path.name}.part")
    half.write_text(text)
    half.replace(path)


def _rows(checks: Sequence[Check], columns: Columns) -> list[tuple[Check, list[str]]]:
    return [
        (check, [cell(results[k]) for results in columns.values()])
        for k, check in enumerate(checks)
    ]


def _notes(columns: Columns) -> list[str]:
    return [
        f"{result.check}, {name}: {result.note}"
        for name, results in columns.items()
        for result in results
        if result.note and result.verdict != "n/a"
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    return re.sub(r"([|<*_])", r"\\\1", text)


def _finite(figure: float | None) -> float | str | None:
    return figure if figure is None or math.isfinite(figure) else str(figure)

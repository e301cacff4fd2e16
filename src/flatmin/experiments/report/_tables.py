"""The tables of a report, and the Markdown around them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flatmin.experiments.dry_run import duration
from flatmin.experiments.report import _scale, _words
from flatmin.experiments.report._numbers import Arm, Report, Row
from flatmin.experiments.table import Column, Table, plain
from flatmin.experiments.tasks import failures

#: What the columns mean.
_MEANING = {
    "ours": "mean of the seeds after the last epoch ± half of Student's 95 % interval; "
    "pending while a run is missing",
    "difference": "ours - paper, in the unit of the quantity",
    "runs": "finished, of those that were asked for",
    "arm": "of several, the one with the least mean error",
    "gradient examples": "examples times gradients, per run",
    "time": "per run",
}


#: The columns after the labels; the terminal hides cost and notes.
_COLUMNS = {
    "quantity": Column("quantity", left=True),
    "arm": Column("arm", left=True),
    "ours": Column("ours"),
    "paper": Column("paper"),
    "difference": Column("difference", short="diff."),
    "runs": Column("runs"),
    "gradient examples": Column("gradient examples", hidden=True),
    "time": Column("time", hidden=True),
    "notes": Column("notes", hidden=True),
}


def markdown(report: Report) -> str:
    """Write a recipe's tables in Markdown, with its title, notes and scale."""
    paragraphs = [
        f"# {plain(report.recipe.title)}",
        plain(f"Run with: {'; '.join(_scale.commands(report))}"),
        plain(_scale.summary(report)),
        results(report).markdown(),
        plain(waiting(report)),
        plain(reading(report)),
        _listed("", footnotes(report), "{}."),
        _under("All arms", arms(report).markdown()),
        _under("Quoted by the paper", quoted(report).markdown()),
        _listed("Differs from the paper", _scale.scale(report)),
        _listed("Notes", report.recipe.notes),
    ]
    return "\n\n".join(text.strip() for text in paragraphs if text) + "\n"


def results(report: Report) -> Table:
    """Return one row per trainable cell."""
    rows = [row for row in report.shown if row.arms]
    several = _several(report)
    texts = [_result(row, several) for row in rows]
    return _table(report, rows, texts, report.recipe.title)


def arms(report: Report) -> Table:
    """Return one row per arm that has runs; none if every cell has only one arm."""
    found = [
        (row, arm)
        for row in report.shown
        for arm in row.arms
        if arm.runs and _several(report)
    ]
    texts = [
        {
            "arm": _words.arm(arm),
            "ours": estimate(arm),
            "runs": f"{len(arm.results)} of {row.seeds}",
        }
        for row, arm in found
    ]
    title = f"All arms: {report.recipe.title}"
    return _table(report, [row for row, _ in found], texts, title)


def quoted(report: Report) -> Table:
    """Return one row per number that the paper takes from others."""
    rows = [row for row in report.shown if not row.arms]
    title = f"Quoted by the paper: {report.recipe.title}"
    return _table(report, rows, [{"paper": _paper(row)} for row in rows], title)


def footnotes(report: Report) -> list[str]:
    """List the notes of the cells in the tables, in order; they are numbered from 1."""
    notes = (note for row in report.shown for note in row.cell.notes)
    return list(dict.fromkeys(notes))


def waiting(report: Report) -> str:
    """Say how many cells are not in the tables; empty if all are."""
    hidden = len(report.rows) - len(report.shown)
    cells = "cell" if hidden == 1 else "cells"
    return f"{hidden} {cells} pending, without any run yet." if hidden else ""


def reading(report: Report) -> str:
    """Explain the columns of the results that are present."""
    meaning = {**_MEANING, "paper": f"± is its {report.recipe.spread}"}
    columns = results(report).columns[len(report.recipe.headings) :]
    names = [column.heading for column in columns]
    said = [f"{name}: {meaning[name]}." for name in names if name in meaning]
    return " ".join(text[0].upper() + text[1:] for text in said)


def estimate(arm: Arm) -> str:
    """Write the mean of an arm's finished runs, with interval and failures if any."""
    if not arm.results:
        return "pending"
    if not math.isfinite(arm.mean):
        return f"no number{failures(arm.results)}"
    metric = arm.cell.metric
    half = arm.interval
    around = "" if half is None else f" ± {_words.number(metric, half)}"
    return f"{_words.number(metric, arm.mean)}{around}{failures(arm.results)}"


def _table(
    report: Report, rows: Sequence[Row], texts: list[dict[str, str]], title: str
) -> Table:
    """Make a table, with the columns for quantities, if they are unclear, and notes.

    Columns without any text are left out.
    """
    unsaid = not _said(report)
    notes = footnotes(report)
    full = [
        {
            "quantity": _words.QUANTITIES[row.cell.metric] if unsaid else "",
            **text,
            "notes": ", ".join(str(notes.index(n) + 1) for n in row.cell.notes),
        }
        for row, text in zip(rows, texts, strict=True)
    ]
    names = list(dict.fromkeys(k for text in full for k in text))
    names = [name for name in names if any(text[name] for text in full)]
    headings = report.recipe.headings
    return Table(
        title=title,
        columns=(
            *(Column(heading, left=True) for heading in headings),
            *(_COLUMNS[name] for name in names),
        ),
        rows=tuple(
            (*row.cell.labels, *(text[name] for name in names))
            for row, text in zip(rows, full, strict=True)
        ),
        caption=_scale.warning(report),
        labels=len(headings),
    )


def _result(row: Row, several: bool) -> dict[str, str]:
    arm = row.reported
    finished = len(arm.results) if arm else row.done
    return {
        "ours": estimate(arm) if arm else "pending",
        "paper": _paper(row),
        "difference": _difference(row),
        "runs": f"{finished} of {row.seeds if arm else row.asked}",
        "arm": _words.arm(arm) if arm and several else "",
        "gradient examples": _words.compact(arm.gradient_examples) if arm else "",
        "time": duration(arm.seconds) if arm else "",
    }


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    return _words.number(row.cell.metric, row.difference, "+")


def _paper(row: Row) -> str:
    return row.cell.paper.text if row.cell.paper else ""


def _several(report: Report) -> bool:
    return any(len(row.arms) > 1 for row in report.shown)


def _said(report: Report) -> bool:
    """Whether a reader knows the quantities: there is one, or a label names each."""
    cells = [row.cell for row in report.shown]
    metrics = {cell.metric for cell in cells}
    pairs = (
        {(c.labels[k], c.metric) for c in cells}
        for k in range(len(report.recipe.headings))
    )
    return len(metrics) <= 1 or any(
        len(found) == len(metrics) == len({label for label, _ in found})
        for found in pairs
    )


def _under(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def _listed(title: str, items: Sequence[str], mark: str = "-") -> str:
    """Write a list in Markdown; ``{}`` in the mark is the item's number."""
    lines = (f"{mark.format(k)} {plain(item)}" for k, item in enumerate(items, 1))
    text = "\n".join(lines)
    return _under(title, text) if title else text

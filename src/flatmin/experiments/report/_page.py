"""``report.html``: all recipes of a folder on one page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from flatmin.experiments.report import _scale, _tables, figures
from flatmin.experiments.report._numbers import Report, records
from flatmin.experiments.report._panels import curves, trends
from flatmin.experiments.table import Column, Table
from flatmin.pictures import html


def render(reports: Sequence[Report]) -> str:
    """Return the page as text."""
    whole = html.render(
        "report.html.j2",
        sections=[_section(k, report) for k, report in enumerate(reports)],
        numbers={report.recipe.name: records(report) for report in reports},
    )
    return str(whole)


def _section(k: int, report: Report) -> dict[str, Any]:
    """Return what the template shows of a recipe."""
    return {
        "title": report.recipe.title,
        "commands": _scale.commands(report),
        "warning": _scale.warning(report),
        "summary": _scale.summary(report),
        "results": _tables.results(report).html(),
        "paragraphs": [_tables.waiting(report), _tables.reading(report)],
        "footnotes": _tables.footnotes(report),
        "folded": {
            "All arms": _tables.arms(report).html(),
            "Quoted by the paper": _tables.quoted(report).html(),
        },
        "figures": [_trends(k, report), _curves(k, report)],
        "lists": {
            "Differs from the paper": _scale.scale(report),
            "Notes on the recipe": report.recipe.notes,
        },
        "environment": _environment(report).html(),
    }


def _trends(k: int, report: Report) -> list[Markup]:
    panels = trends(report)
    paper = any(line.paper for panel in panels for line in panel.lines)
    diamonds = "; diamonds: the paper's numbers" if paper else ""
    caption = f"Mean of the seeds; band: 95 % interval{diamonds}."
    return figures.html(panels, f"trend-{k}", caption)


def _curves(k: int, report: Report) -> list[Markup]:
    caption = "Test error over training: mean of the seeds; band: their range."
    return figures.html(curves(report), f"curves-{k}", caption)


def _environment(report: Report) -> Table:
    columns = tuple(Column(name, left=True) for name in _scale.PLACES)
    rows = tuple(_scale.environments(report))
    return Table(f"Environment: {report.recipe.title}", columns, rows, labels=0)

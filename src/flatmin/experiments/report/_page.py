"""``report.html``: all recipes of a folder on one page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from flatmin.experiments.report import _figures, _grids, _tables
from flatmin.experiments.report._grids import Grid
from flatmin.experiments.report._numbers import Report, records
from flatmin.experiments.report._panels import Panel, curves, trends
from flatmin.experiments.report._scale import (
    PLACES,
    commands,
    environments,
    scale,
    summary,
    warning,
)
from flatmin.pictures import html

_STYLE = """
.label, .joint, .words, .places td, .places th { text-align: left; }
tbody th { font-weight: normal; }
thead th, .label, .joint, .places td { white-space: normal; }
.places td { min-width: 9rem; }
.numbers table { width: auto; }
.joint { display: none; }
li, p, h1, h2, figcaption { overflow-wrap: anywhere; }
section { border-top: 2px solid #ccc; margin-top: 1.5rem; }
code { background: #f5f5f5; padding: 0 .2rem; }
details { margin: .6rem 0; } summary { cursor: pointer; padding: .3rem 0; }
@media (max-width: 40rem) {
  th, td { padding: .35rem .4rem; }
  .label { display: none; }
  .joint { display: table-cell; position: sticky; left: 0; background: #fff;
           min-width: 7rem; max-width: 9rem; }
}
@media print {
  .wide { overflow: visible; } .download, nav { display: none; }
  figure, tr { break-inside: avoid; }
}
"""


def render(reports: Sequence[Report]) -> str:
    """The page, as text."""
    links = "".join(
        f'<li><a href="#recipe-{k}">{escape(report.recipe.title)}</a></li>'
        for k, report in enumerate(reports)
    )
    sections = "".join(_section(k, report) for k, report in enumerate(reports))
    data = {report.recipe.name: records(report) for report in reports}
    body = f"""<h1>Runs and the paper's numbers</h1>
<nav aria-label="Recipes"><ul>{links}</ul></nav>
<p><a class="download" data-of="numbers" download="report.json" href="#">Download the
numbers as JSON</a></p>
{sections}
{html.embedded("numbers", data)}"""
    return html.document("flatmin: runs and the paper's numbers", body, _STYLE)


def _section(k: int, report: Report) -> str:
    recipe = report.recipe
    notes = "".join(f"<li>{escape(note)}</li>" for note in _grids.footnotes(report))
    return f"""<section><h2 id="recipe-{k}">{escape(recipe.title)}</h2>
<p>{_run_with(report)}</p>
{_tables.html(_grids.results(report), f"Results: {recipe.title}")}
{_paragraph(_grids.waiting(report))}
{_paragraph(_grids.reading(report))}
{f"<h3>Notes on cells</h3><ol>{notes}</ol>" if notes else ""}
{_folded(report, "All arms", _grids.arms(report))}
{_folded(report, "Quoted by the paper", _grids.quoted(report))}
{_figures_of(k, report)}
{_list(scale(report), "<h3>Differs from the paper</h3>")}
{_list(recipe.notes, "<h3>Notes on the recipe</h3>")}
<h3>Environment</h3>
{_environment(report)}
</section>"""


def _run_with(report: Report) -> str:
    """What was run, and at what scale; a warning stands out."""
    found = (f"<code>{escape(command)}</code>" for command in commands(report))
    tag = "strong" if warning(report) else "span"
    return f"Run with {'; '.join(found)}. <{tag}>{escape(summary(report))}</{tag}>"


def _folded(report: Report, title: str, grid: Grid) -> str:
    table = _tables.html(grid, f"{title}: {report.recipe.title}")
    return f"<details><summary>{title}</summary>{table}</details>" if table else ""


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""


def _figures_of(k: int, report: Report) -> str:
    trend = trends(report)
    paper = any(line.paper for panel in trend for line in panel.lines)
    diamonds = "; diamonds: the paper's numbers" if paper else ""
    return _drawn(
        f"trend-{k}", trend, f"Mean of the seeds; band: 95 % interval{diamonds}."
    ) + _drawn(
        f"curves-{k}", curves(report),
        "Test error over training: mean of the seeds; band: their range.",
    )  # fmt: skip


def _drawn(name: str, panels: Sequence[Panel], caption: str) -> str:
    figures = "".join(
        html.figure(
            _figures.drawn(panel),
            f"{name}-{i}",
            f"{panel.title}. {caption}" if panel.title else caption,
        )
        for i, panel in enumerate(panels)
    )
    return f'<div class="pair">{figures}</div>' if figures else ""


def _environment(report: Report) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in PLACES)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in place)}</tr>"
        for place in environments(report)
    )
    return (
        '<div class="wide places" tabindex="0" role="region" aria-label="Environment">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _list(items: Sequence[str], heading: str = "") -> str:
    if not items:
        return ""
    return f"{heading}<ul>{''.join(f'<li>{escape(one)}</li>' for one in items)}</ul>"

"""``report.html``: all recipes of a folder on one page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from flatmin.experiments.report import _figures, _tables
from flatmin.experiments.report._numbers import Report, records
from flatmin.experiments.report._panels import Panel, curves, trends
from flatmin.experiments.report._scale import PLACES, commands, environments, scale
from flatmin.pictures import html

_STYLE = """
td:first-child, th:first-child, .places td, .places th { text-align: left; }
.places td, .numbers td:nth-last-child(4) { white-space: normal; min-width: 9rem; }
li, p, figcaption { overflow-wrap: anywhere; }
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
    notes = "".join(f"<li>{escape(note)}</li>" for note in _tables.footnotes(report))
    return f"""<section><h2 id="recipe-{k}">{escape(recipe.title)}</h2>
{_asked(report)}
{_tables.html(report)}
<p>{escape(_tables.waiting(report))}</p>
<p>{escape(_tables.reading(report))}</p>
{f"<h3>Notes on cells</h3><ol>{notes}</ol>" if notes else ""}
<h3>Scale</h3>
{_list(scale(report)) or "<p>That of the paper.</p>"}
{_list(recipe.notes, "<h3>Notes on the recipe</h3>")}
{_figures_of(k, report)}
<h3>Environment</h3>
{_environment(report)}
{_list(commands(report), "<p>Commands:</p>")}
</section>"""


def _asked(report: Report) -> str:
    started = report.started
    settings = [f"--set {setting}" for setting in started.settings]
    asked = ["flatmin train", started.part or started.recipe, *settings]
    return f"<p><code>{escape(' '.join(asked))}</code></p>"


def _figures_of(k: int, report: Report) -> str:
    trend = _drawn(
        f"trend-{k}", trends(report),
        "Mean of the seeds; band: 95 % interval; diamonds: the paper's numbers.",
    )  # fmt: skip
    curve = _drawn(
        f"curves-{k}", curves(report),
        "Test error over training: mean of the seeds; band: their range.",
    )  # fmt: skip
    return trend + curve


def _drawn(name: str, panels: Sequence[Panel], caption: str) -> str:
    return "".join(
        html.figure(
            _figures.drawn(panel),
            f"{name}-{i}",
            f"{panel.title}. {caption}" if panel.title else caption,
        )
        for i, panel in enumerate(panels)
    )


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

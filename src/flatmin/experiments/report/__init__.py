"""``flatmin report``: from the folders of runs to tables, figures and a page.

FOLDER/
report.html          everything, on one page
tables/NAME.md       for documents
tables/NAME.csv      one record per arm, in full precision
figures/NAME-curves.svg, .png   learning curves
figures/NAME-trend.svg, .png    where labels are numbers: results against them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console

from flatmin.experiments.errors import BadInput
from flatmin.experiments.recipes._recipe import Recipe
from flatmin.experiments.report import _panels, _scale, _tables, figures
from flatmin.experiments.report._numbers import Report, collect, records
from flatmin.experiments.report._panels import curves, trends
from flatmin.experiments.runs.asked import recipes_of
from flatmin.experiments.runs.files import write
from flatmin.experiments.table import Column, Table
from flatmin.pictures import encoded, html

__all__ = ["numbers", "report"]


def report(
    folders: Sequence[Path], find: Callable[[str], Recipe], console: Console
) -> list[Path]:
    """Report on folders of runs: write files into each, and print its tables.

    Runs may still be training: unfinished ones are pending. Nothing is written unless
    every folder can be read.

    Args:
        folders: each is what ``flatmin train`` writes to.
        find: returns the recipe of a name, or raises `BadInput`.
        console: where to print.

    Returns:
        The paths of the pages.

    Raises:
        BadInput: a folder holds no run, or a file in it is damaged.
    """
    with console.status("reading the runs"):
        found = [_collected(folder, find) for folder in folders]
        contents = [_files(reports) for reports in found]
    for folder, reports, files in zip(folders, found, contents, strict=True):
        for name, content in files.items():
            write(folder / name, content)
        for one in reports:
            console.print(_tables.results(one))
            if _tables.waiting(one):
                console.print(_tables.waiting(one), highlight=False, markup=False)
    return [folder / "report.html" for folder in folders]


def numbers(
    folders: Sequence[Path], find: Callable[[str], Recipe]
) -> list[dict[str, Any]]:
    """Return the numbers of `report` for programs: the arms of each folder's recipes.

    Args:
        folders: as of `report`.
        find: as of `report`.

    Raises:
        BadInput: as `report`.
    """
    return [
        {
            "folder": str(folder),
            "recipe": one.recipe.name,
            "title": one.recipe.title,
            "smoke": one.started.smoke,
            "arms": records(one),
        }
        for folder in folders
        for one in _collected(folder, find)
    ]


def _collected(folder: Path, find: Callable[[str], Recipe]) -> list[Report]:
    reports = []
    for path, asked in recipes_of(folder).items():
        try:
            recipe = find(asked.recipe)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from None
        reports.append(collect(folder, recipe, asked))
    if not any(row.started for report in reports for row in report.rows):
        raise BadInput(f"{folder} holds no runs yet. Let flatmin train begin one.")
    return reports


def _files(reports: Sequence[Report]) -> dict[str, bytes | str]:
    files: dict[str, bytes | str] = {}
    for one in reports:
        name = one.recipe.name
        files[f"tables/{name}.md"] = _tables.markdown(one)
        files[f"tables/{name}.csv"] = Table.of(records(one)).csv()
        kinds = {"curves": _panels.curves(one), "trend": _panels.trends(one)}
        for kind, panels in kinds.items():
            if panels:
                figure = figures.printed(panels, _scale.warning(one))
                files[f"figures/{name}-{kind}.svg"] = encoded(figure, "svg")
                files[f"figures/{name}-{kind}.png"] = encoded(figure, "png")
    files["report.html"] = render(reports)
    return files


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

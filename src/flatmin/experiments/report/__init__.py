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

from rich.console import Console

from flatmin.experiments.errors import BadInput
from flatmin.experiments.recipes._recipe import Recipe
from flatmin.experiments.report import _figures, _grids, _page, _panels, _scale, _tables
from flatmin.experiments.report._numbers import Report, collect
from flatmin.experiments.report._stored import started
from flatmin.experiments.store import write
from flatmin.pictures import encoded

__all__ = ["report"]


def report(
    folders: Sequence[Path], find: Callable[[str], Recipe], console: Console
) -> list[Path]:
    """Report on folders of runs; each gets its own files, and its tables are printed.

    Runs may be going on meanwhile: what is unfinished is pending. Nothing is written
    unless every folder can be read.

    Args:
        folders: each is what ``flatmin train`` writes to.
        find: gives the recipe of a name, or raises `BadInput`.
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
            console.print(_tables.terminal(one))
            if _grids.waiting(one):
                console.print(_grids.waiting(one), highlight=False, markup=False)
    return [folder / "report.html" for folder in folders]


def _collected(folder: Path, find: Callable[[str], Recipe]) -> list[Report]:
    reports = []
    for path, asked in started(folder).items():
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
        files[f"tables/{name}.csv"] = _tables.comma_separated(one)
        kinds = {"curves": _panels.curves(one), "trend": _panels.trends(one)}
        for kind, panels in kinds.items():
            if panels:
                figure = _figures.printed(panels, _scale.warning(one))
                files[f"figures/{name}-{kind}.svg"] = encoded(figure, "svg")
                files[f"figures/{name}-{kind}.png"] = encoded(figure, "png")
    files["report.html"] = _page.render(reports)
    return files

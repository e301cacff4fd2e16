"""``flatmin report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flatmin.experiments.cli.options import Data, readable_paths
from flatmin.experiments.cli.output import print_json, say
from flatmin.experiments.runs.names import COMPARISON


def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER",
            help="Where flatmin train or flatmin compare wrote runs. Default: runs.",
            callback=readable_paths,
        ),
    ] = None,
    data: Data = Path("data"),
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the numbers as one JSON document; write no files."
        ),
    ] = False,
) -> None:
    """Report on finished runs, on a page: the paper's numbers beside ours."""
    from flatmin.experiments.compare.main import numbers as compare_numbers
    from flatmin.experiments.compare.main import report as report_comparison
    from flatmin.experiments.recipes import recipe
    from flatmin.experiments.report import numbers
    from flatmin.experiments.report import report as run

    where, console = folders or [Path("runs")], Console()
    compared = [folder for folder in where if (folder / COMPARISON).is_file()]
    trained = [folder for folder in where if folder not in compared]
    if as_json:
        print_json([*numbers(trained, recipe), *map(compare_numbers, compared)])
        return
    pages = [report_comparison(folder, data, console) for folder in compared]
    if trained:
        pages += run(trained, recipe, console)
    for page in pages:
        say(f"Page: {page}")

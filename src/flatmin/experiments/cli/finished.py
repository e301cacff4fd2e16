"""Commands about finished runs: report, export, sharpness, landscape."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flatmin.experiments.cli.options import (
    Data,
    Finished,
    Json,
    folder,
    readable,
    readable_paths,
)
from flatmin.experiments.cli.output import print_json, say
from flatmin.experiments.errors import BadInput

if TYPE_CHECKING:
    from flatmin.experiments.runs.opened import Finished as Run

Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Network of timm's, for files of weights; --data is then their images.",
    ),
]
Classes = Annotated[
    int | None,
    typer.Option(help="Its outputs. Default: the classes of the images.", min=2),
]
Size = Annotated[
    int | None,
    typer.Option("--image-size", help="Its images' side. Default: timm's for it."),
]


def sharpness(
    runs: Finished,
    rho: Annotated[
        float | None,
        typer.Option(help="Radius. Default: that of the runs' own measurement."),
    ] = None,
    m: Annotated[int, typer.Option("--m", help="Examples per group.")] = 16,
    data: Data = Path("data"),
    model: Model = None,
    classes: Classes = None,
    image_size: Size = None,
    as_json: Json = False,
) -> None:
    """Measure the sharpness and curvature of finished runs, or of files of weights."""
    from flatmin.experiments.measure import check, measure, table

    check(rho, m)
    opened = _opened(runs, data, model, classes, image_size)
    found = measure(opened, rho, m, Console(stderr=as_json, emoji=False))
    if as_json:
        print_json(found)
    else:
        Console(emoji=False).print(table(found))


def landscape(
    runs: Finished,
    points: Annotated[int, typer.Option(help="Along each axis.", min=2, max=501)] = 31,
    radius: Annotated[
        float, typer.Option(help="Half the side: 1 moves each filter by its norm.")
    ] = 1.0,
    data: Data = Path("data"),
    model: Model = None,
    classes: Classes = None,
    image_size: Size = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Where landscape.html, .svg, .png and .json go.", callback=folder
        ),
    ] = Path("runs/landscape"),
) -> None:
    """Draw the loss around trained models, side by side on one scale."""
    from flatmin.experiments.landscape import axis
    from flatmin.experiments.landscape import landscape as run

    at = axis(points, radius)
    opened = _opened(runs, data, model, classes, image_size)
    say(f"Page: {run(opened, out, at, Console(emoji=False))}")


def _opened(
    paths: list[Path],
    data: Path,
    model: str | None,
    classes: int | None,
    size: int | None,
) -> list[Run]:
    """Open finished runs, or networks that were trained elsewhere."""
    from flatmin.experiments.runs.elsewhere import Network, elsewhere
    from flatmin.experiments.runs.opened import finished

    if model is not None:
        return elsewhere(paths, data, Network(model, classes, size))
    for path in paths:
        if path.is_file():
            raise BadInput(
                f"{path} is a file. If it holds weights, say of which network, and "
                "where its images are: --model NAME --data FOLDER."
            )
    if classes is not None or size is not None:
        raise BadInput("--classes and --image-size are for files, with --model NAME.")
    return finished(paths, data)


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
    from flatmin.experiments.runs.asked import COMPARISON

    where, console = folders or [Path("runs")], Console(emoji=False)
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


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Folder of a finished run.", callback=readable
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="An empty folder, or one that is not there.", callback=folder
        ),
    ] = Path("model"),
) -> None:
    """Write a trained network for others: weights, classes, size and statistics."""
    from flatmin.experiments.runs import export as exporting
    from flatmin.experiments.runs.record import Run

    exporting.export(run, out)
    say(f"Model: {out}")
    if Run(run).experiment.data == "digits":
        say("The digits have levels from 0 to 16. Scale those of other pictures.")
    say(f"\n{exporting.snippet(out).rstrip()}")

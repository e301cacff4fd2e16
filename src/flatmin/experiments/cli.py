"""The command line: verbs, a recipe name, ``--set field=value``; nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flatmin.experiments import config as configuration
from flatmin.experiments.errors import BadInput

#: What shells report for a program that Ctrl-C ended; newer typer returns it by itself.
_INTERRUPTED = 130

_Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Change a field."),
]
_DataRoot = Annotated[
    Path, typer.Option(envvar="FLATMIN_DATA", help="Where the data sets are.")
]
_Runs = Annotated[
    Path, typer.Option(help="Folder of runs; the same command continues there.")
]
_Smoke = Annotated[
    bool, typer.Option("--smoke", help="Two steps of each, on made-up images.")
]

app = typer.Typer(
    name="flatmin",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def verbs(context: typer.Context) -> None:
    """Sharpness-aware minimization for PyTorch."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def compare(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe.")] = "digits",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Image folder: FOLDER/train/CLASS/* and FOLDER/test/CLASS/*, or "
            "FOLDER/CLASS/* to be split. Default: the recipe's own data."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Run folder; the same command continues there.")
    ] = Path("runs/compare"),
    settings: _Settings = None,
) -> None:
    """Train one network under SGD and SAM at equal cost, and show the difference."""
    config = configuration.recipe(recipe)
    if data is not None:
        config = configuration.with_data(config, data)
    config = configuration.changed(config, settings or ())

    # Imported late: a wrong argument shall not have to wait for torch.
    from flatmin.experiments.compare import compare as run

    console = Console()
    page = run(config, out, console)
    console.print(f"Report: {page}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe, or a part of it: table4/noise-40/sam.")
    ],
    settings: _Settings = None,
    data: _DataRoot = Path("data"),
    out: _Runs = Path("runs"),
    smoke: _Smoke = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take; train nothing.")
    ] = False,
) -> None:
    """Train what a table or figure of the paper shows, or what is left of it."""
    # Imported late: a wrong argument shall not have to wait for torchvision.
    from flatmin.experiments.dry_run import dry_run as estimate
    from flatmin.experiments.runs import Order, train_all

    order = Order(recipe, tuple(settings or ()), smoke, out, data)
    console = Console()
    if dry_run:
        estimate(order, console)
    else:
        train_all(order, console)


@app.command()
def sweep(
    cell: Annotated[
        str, typer.Argument(help="A cell of a recipe: table4/noise-40/sam.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change a field; a list makes it part of the grid: 'rho=[0.05,0.1]'.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes to start on this machine.", min=1)
    ] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="FLATMIN_STORAGE",
            metavar="URL",
            help="Data base for several machines. Default: a file under --out.",
        ),
    ] = None,
    data: _DataRoot = Path("data"),
    out: _Runs = Path("runs"),
    smoke: _Smoke = False,
) -> None:
    """Search the paper's grid for the rho with the lowest validation error."""
    # Imported late: a wrong argument shall not have to wait for torchvision.
    from flatmin.experiments.runs import Order
    from flatmin.experiments.sweep import sweep as run

    order = Order(cell, tuple(settings or ()), smoke, out, data)
    run(order, Console(), storage, workers)


@app.command()
def sharpness(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of finished runs, or above them: runs/figure1.",
        ),
    ],
    rho: Annotated[
        float | None,
        typer.Option(help="Radius. Default: that of the runs' own measurement."),
    ] = None,
    m: Annotated[int, typer.Option("--m", help="Examples per group.")] = 16,
    data: _DataRoot = Path("data"),
) -> None:
    """Measure the flatness of finished runs: sharpness in four ways, and curvature."""
    from flatmin.experiments.measure import measure

    measure(runs, data, rho, m, Console())


@app.command()
def landscape(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of finished runs, or above them: runs/figure1."),
    ],
    points: Annotated[int, typer.Option(help="Along each axis.", min=2, max=501)] = 31,
    radius: Annotated[
        float, typer.Option(help="Half the side: 1 moves each filter by its norm.")
    ] = 1.0,
    data: _DataRoot = Path("data"),
    out: Annotated[
        Path, typer.Option(help="Where landscape.html, .svg, .png and .json go.")
    ] = Path("runs/landscape"),
) -> None:
    """Draw the loss around trained models, side by side on one scale."""
    from flatmin.experiments.landscape import landscape as run

    console = Console()
    page = run(runs, data, out, points, radius, console)
    console.print(f"Page: {page}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER...]",
            help="Where flatmin train wrote runs. Default: runs.",
        ),
    ] = None,
) -> None:
    """Set trained runs against the paper's numbers: tables, curves and a page."""
    from flatmin.experiments.recipes import recipe
    from flatmin.experiments.report import report as run

    console = Console()
    for page in run(folders or [Path("runs")], recipe, console):
        console.print(f"Page: {page}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def methods() -> None:
    """List the methods, with the gradients that a step of each takes."""
    from flatmin.methods import METHODS

    table = Table("method", "gradients", "what it does", box=None)
    for name, entry in METHODS.items():
        table.add_row(name, entry.gradients, entry.line.replace("``", ""))
    Console().print(table, highlight=False, markup=False)


@app.command()
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="A recipe, or a part of one: table4/noise-40."),
    ] = None,
) -> None:
    """List the paper's tables and figures that can be run, or the cells of one."""
    from flatmin.experiments import listing
    from flatmin.experiments.recipes import recipe

    shown = listing.every_recipe() if name is None else listing.one_recipe(recipe(name))
    typer.echo(shown)


def main() -> None:
    """Run the program; bad input is one line on stderr and exit code 2."""
    try:
        code: Any = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except (BadInput, OSError) as error:
        code = _refuse(str(error))
    except Exception as error:
        # typer's usage errors have no public base class; they all have this method.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        code = _refuse(message())
    if code == _INTERRUPTED:
        typer.echo("\nflatmin: stopped. The same command continues here.", err=True)
    sys.exit(code)


def _refuse(message: str) -> int:
    typer.echo(f"flatmin: {' '.join(message.split())}", err=True)
    return 2

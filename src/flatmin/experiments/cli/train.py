"""``flatmin train`` and ``flatmin sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flatmin.experiments.cli.options import (
    Data,
    Runs,
    Settings,
    Smoke,
    field_names,
    recipe_names,
)


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe, or a part of it: table4/noise-40/sam.",
            autocompletion=recipe_names,
        ),
    ],
    settings: Settings = None,
    data: Data = Path("data"),
    out: Runs = Path("runs"),
    smoke: Smoke = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take; train nothing.")
    ] = False,
) -> None:
    """Train a table or figure of the paper, or what is left of it."""
    # Imported late: a wrong option does not wait for torchvision.
    from flatmin.experiments.dry_run import dry_run as estimate
    from flatmin.experiments.jobs import Request, train_all

    request = Request(recipe, tuple(settings or ()), smoke, out, data)
    console = Console()
    if dry_run:
        estimate(request, console)
    else:
        train_all(request, console)


def sweep(
    cell: Annotated[
        str,
        typer.Argument(
            help="A cell of a recipe: table4/noise-40/sam.", autocompletion=recipe_names
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change a field; a list makes it part of the grid: 'rho=[0.05,0.1]'.",
            autocompletion=field_names,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes to start on this machine.", min=1, max=256)
    ] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="FLATMIN_STORAGE",
            metavar="URL",
            help="Data base for several machines. Default: a file under --out.",
        ),
    ] = None,
    data: Data = Path("data"),
    out: Runs = Path("runs"),
    smoke: Smoke = False,
) -> None:
    """Search the paper's grid for the rho with the least error."""
    # Imported late: a wrong option does not wait for torchvision.
    from flatmin.experiments.jobs import Request
    from flatmin.experiments.sweep import sweep as run

    request = Request(cell, tuple(settings or ()), smoke, out, data)
    run(request, Console(), storage, workers)

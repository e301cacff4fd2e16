"""Commands that train, or say whether to: train, sweep, compare, preflight."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flatmin.experiments.cli.options import (
    Data,
    Images,
    Json,
    Model,
    Optimizer,
    Runs,
    Settings,
    Smoke,
    Weights,
    field_names,
    folder,
    recipe_names,
)
from flatmin.experiments.cli.output import print_json, say


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
    console = Console(emoji=False)
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
    run(request, Console(emoji=False), storage, workers)


def compare(
    what: Images = "digits",
    model: Model = "resnet18",
    weights: Weights = None,
    optimizer: Optimizer = "sgd",
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that share the work. Default: one per core."),
    ] = None,
    settings: Settings = None,
    data: Data = Path("data"),
    out: Annotated[
        Path,
        typer.Option(
            help="Run folder; the same command continues there.", callback=folder
        ),
    ] = Path("runs/compare"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take; train nothing.")
    ] = False,
) -> None:
    """Find out whether sharpness-aware minimization pays, and with which settings."""
    # Imported late: a wrong argument must not wait for torchvision.
    from flatmin.experiments.compare import main as job
    from flatmin.experiments.compare.request import Asked
    from flatmin.experiments.compare.workers import checked

    asked = Asked(what, model, weights, optimizer, tuple(settings or ()))
    comparison, processes = asked.comparison(), checked(workers)
    console = Console(emoji=False)
    if dry_run:
        job.preview(comparison, data, processes, console)
    else:
        say(f"Report: {job.compare(comparison, out, data, processes, console)}")


def preflight(
    what: Images = "digits",
    model: Model = "resnet18",
    weights: Weights = None,
    optimizer: Optimizer = "sgd",
    settings: Settings = None,
    data: Data = Path("data"),
    as_json: Json = False,
) -> None:
    """Check within about a minute whether SAM can help; train nothing."""
    # Imported late: a wrong argument must not wait for torchvision.
    from flatmin.experiments.compare.place import read
    from flatmin.experiments.compare.preflight import checked
    from flatmin.experiments.compare.request import Asked
    from flatmin.experiments.launch import launched

    asked = Asked(what, model, weights, optimizer, tuple(settings or ()))
    comparison = asked.comparison()
    fabric, found = launched(comparison.experiment), []
    sets = read(comparison, data)
    for one in comparison.settings:
        for finding in checked(fabric, comparison, one, sets[one.name]):
            found.append({"setting": one.label, **asdict(finding)})
    if as_json:
        print_json(found)
        return
    for line in found:
        say(f"{line['level']}: {line['setting']}: {line['sentence']}")

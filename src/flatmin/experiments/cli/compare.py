"""``flatmin compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flatmin.experiments.cli.options import (
    Data,
    Images,
    Model,
    Optimizer,
    Settings,
    Weights,
    folder,
)
from flatmin.experiments.cli.output import say


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
    comparison, processes, console = asked.comparison(), checked(workers), Console()
    if dry_run:
        job.preview(comparison, data, processes, console)
    else:
        say(f"Report: {job.compare(comparison, out, data, processes, console)}")

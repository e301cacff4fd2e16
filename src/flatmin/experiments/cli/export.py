"""``flatmin export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flatmin.experiments.cli.options import folder, readable
from flatmin.experiments.cli.output import say


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

    exporting.export(run, out)
    say(f"Model: {out}\n\n{exporting.snippet(out).rstrip()}")

"""Options that commands share, and the words that the Tab key completes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from flatmin.experiments.config import SETTABLE
from flatmin.experiments.errors import shown
from flatmin.experiments.recipes import RECIPES


def recipe_names(incomplete: str) -> list[str]:
    """List the recipes that begin with what was typed."""
    return [name for name in RECIPES if name.startswith(incomplete)]


def field_names(incomplete: str) -> list[str]:
    """List the fields that begin with what was typed, as ``--set`` takes them."""
    return [f"{name}=" for name in SETTABLE if name.startswith(incomplete)]


def readable(path: Path) -> Path:
    """Refuse a path that messages, JSON and pages cannot show.

    Raises:
        typer.BadParameter: it is not UTF-8, or has a line break or another sign that
            cannot be printed.
    """
    if not str(path).isprintable():
        raise typer.BadParameter(f"{shown(str(path))} has signs that cannot be printed")
    return path


def readable_paths(paths: list[Path] | None) -> list[Path] | None:
    """Refuse paths that are not `readable`."""
    for path in paths or ():
        readable(path)
    return paths


def folder(path: Path) -> Path:
    """Refuse a path that is not a folder and cannot become one.

    Raises:
        typer.BadParameter: as `readable`; or the path, or one above it, is a file.
    """
    for above in (readable(path), *path.parents):
        if above.is_file():
            raise typer.BadParameter(f"{shown(str(above))} is a file, not a folder")
    return path


def examples(lines: Iterable[str]) -> str:
    """Write the examples at the end of a command's help."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field; flatmin fields lists them. Once for each field.",
        autocompletion=field_names,
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        envvar="FLATMIN_DATA", help="Where the data sets are.", callback=folder
    ),
]
Runs = Annotated[
    Path,
    typer.Option(
        help="Folder of runs; the same command continues there.", callback=folder
    ),
]
Smoke = Annotated[
    bool, typer.Option("--smoke", help="Two steps of each, on made-up images.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]
Images = Annotated[
    str,
    typer.Argument(
        metavar="[FOLDER]",
        help="Images: FOLDER/CLASS/*, or FOLDER/{train,validation,test}/CLASS/*. "
        "Default: the digits that come with scikit-learn.",
    ),
]
Model = Annotated[str, typer.Option(help="Network of timm's, for a folder.")]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Its weights, .safetensors or .pth; 'none' trains from scratch. "
        "Default: those that timm downloads.",
    ),
]
Optimizer = Annotated[Literal["sgd", "adamw"], typer.Option(help="The base optimizer.")]
Finished = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN",
        help="Folders of finished runs, or above them: runs/figure1. With --model, "
        "files of weights, .safetensors or .pth.",
        callback=readable_paths,
    ),
]

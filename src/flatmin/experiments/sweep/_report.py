"""Report on a sweep: a table, a file for programs, the command to train the best."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console

from flatmin.experiments.config import Experiment
from flatmin.experiments.intervals import best, interval, mean
from flatmin.experiments.jobs import Request
from flatmin.experiments.runs.files import in_turn, write, write_json
from flatmin.experiments.sweep._grid import Grid, Point
from flatmin.experiments.sweep._study import Standing
from flatmin.experiments.table import Column, Table, counted

#: Verdict on a point that the seeds do not tell from the best.
_TIED = "not distinguishable from the best"


def report(
    grid: Grid, found: list[Standing], request: Request, home: Path, console: Console
) -> bool:
    """Print which points are left; if none, write and print the result.

    Args:
        grid: what was tried.
        found: its points and their errors.
        request: what was asked for.
        home: where ``best.json`` and ``table.md`` go.
        console: to print on.

    Returns:
        Whether all points are trained.
    """
    left = [_words(one.point) for one in found if not one.errors]
    if left:
        said = f"{len(left)} of {len(found)} points are left: {'; '.join(left)}."
        _print(console, f"{said} The same command continues.")
        return False
    choice = best([one.errors for one in found])
    chosen, shown = found[choice.index], table(found, Shown.of(grid.arm))
    command = train_command(grid, request, chosen.point)
    record = {
        "cell": grid.cell.name,
        "point": chosen.point,
        "validation_error": mean(chosen.errors),
        "interval": interval(chosen.errors),
        "errors": list(chosen.errors),
        "ties": [found[k].point for k in choice.tied],
        "validation": grid.arm.validation,
        "train": command,
    }
    with in_turn(home):
        write_json(home / "best.json", record)
        write(home / "table.md", shown.markdown())
    _print(console, f"{grid.cell.name}, {_held(grid.arm)}:")
    console.print(shown)
    _print(console, f"To train with the best: {command}")
    return True


def _held(arm: Experiment) -> str:
    """Say what the points are validated on."""
    if arm.horizon is not None:
        return "validated on the part after the training steps"
    if arm.tokens is not None:
        return "validated on the sentences that are published for it"
    return f"{100 * arm.validation:g} % of the training images held out"


@dataclass(frozen=True, slots=True)
class Shown:
    """Name and digits of a task's validation errors."""

    name: str = "validation error %"
    digits: int = 2

    @classmethod
    def of(cls, arm: Experiment) -> Self:
        """Per cent of wrong images, or the squared error of a forecast."""
        return cls() if arm.horizon is None else cls("validation MSE", 4)


def table(found: list[Standing], shown: Shown | None = None) -> Table:
    """List the points, and mark those that the seeds do not tell from the best."""
    shown = shown or Shown()
    choice = best([one.errors for one in found])
    verdicts = {choice.index: "best", **dict.fromkeys(choice.tied, _TIED)}
    alone = choice.seeds == 1
    seeds = counted(choice.seeds, "seed")
    axes = tuple(map(Column, found[0].point))
    error = shown.name
    spread = "" if alone else f", mean ± 95 % interval of {seeds}"
    columns = (Column(f"{error}{spread}", error), Column(f"over {seeds}", left=True))
    rows = tuple(
        (*one.point.values(), _cell(one, shown.digits), verdicts.get(k, ""))
        for k, one in enumerate(found)
    )
    caption = "One seed has no interval: --set seeds=3 tells more." if alone else ""
    return Table(
        title="",
        columns=(*axes, *columns),
        rows=rows,
        caption=caption,
        labels=len(axes),
        strong=(choice.index,),
    )


def train_command(grid: Grid, request: Request, point: Point) -> str:
    """Return the command that trains the cell at a point, on all training images."""
    gone = {"validation", "seeds", *grid.axes}
    kept = [one for one in request.settings if one.partition("=")[0] not in gone]
    command = ["flatmin", "train", grid.cell.name]
    for setting in (*kept, *(f"{name}={value}" for name, value in point.items())):
        command += ["--set", setting]
    usual = Request(request.name)
    if request.root != usual.root:
        command += ["--out", str(request.root)]
    if request.data != usual.data:
        command += ["--data", str(request.data)]
    return shlex.join([*command, *(["--smoke"] if request.small else [])])


def _words(point: Point) -> str:
    return ", ".join(f"{name} {value}" for name, value in point.items())


def _cell(one: Standing, digits: int) -> str:
    half = interval(one.errors)
    around = "" if half is None else f" ± {half:.{digits}f}"
    return f"{mean(one.errors):.{digits}f}{around}"


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)

"""What a sweep has found: a table, a file for programs, and the command to go on."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console

from flatmin.experiments.choice import best
from flatmin.experiments.intervals import interval, mean
from flatmin.experiments.jobs import Request
from flatmin.experiments.runs.files import write, write_json
from flatmin.experiments.runs.lock import in_turn
from flatmin.experiments.sweep._grid import Grid, Point
from flatmin.experiments.sweep._study import Standing
from flatmin.experiments.table import Column, Table, counted

#: What is said of a point that the seeds do not tell from the best.
_TIED = "not distinguishable from the best"


def report(
    grid: Grid, found: list[Standing], request: Request, home: Path, console: Console
) -> bool:
    """Print what is left, or else write and print what was found.

    Args:
        grid: what was tried.
        found: how its points stand.
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
    chosen, shown = found[choice.index], table(found)
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
    share = f"{100 * grid.arm.validation:g} % of the training images held out"
    _print(console, f"{grid.cell.name}, {share}:")
    console.print(shown)
    _print(console, f"To train with the best: {command}")
    return True


def table(found: list[Standing]) -> Table:
    """The points, and which of them the seeds do not tell from the best."""
    choice = best([one.errors for one in found])
    verdicts = {choice.index: "best", **dict.fromkeys(choice.tied, _TIED)}
    alone = choice.seeds == 1
    seeds = counted(choice.seeds, "seed")
    axes = tuple(map(Column, found[0].point))
    error = "validation error %"
    spread = "" if alone else f", mean ± 95 % interval of {seeds}"
    columns = (Column(f"{error}{spread}", error), Column(f"over {seeds}", left=True))
    rows = tuple(
        (*one.point.values(), _cell(one), verdicts.get(k, ""))
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
    """The command that trains the cell at a point, on all training images."""
    gone = {"validation", "seeds", *grid.axes}
    kept = [one for one in request.settings if one.partition("=")[0] not in gone]
    command = ["flatmin", "train", grid.cell.name]
    for setting in (*kept, *(f"{name}={value}" for name, value in point.items())):
        command += ["--set", setting]
    return shlex.join([*command, *(["--smoke"] if request.small else [])])


def _words(point: Point) -> str:
    return ", ".join(f"{name} {value}" for name, value in point.items())


def _cell(one: Standing) -> str:
    half = interval(one.errors)
    return f"{mean(one.errors):.2f}{'' if half is None else f' ± {half:.2f}'}"


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)

"""What a sweep has found: a table, a file for programs, and the command to go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from flatmin.experiments.runs import Order
from flatmin.experiments.store import in_turn, write, write_json
from flatmin.experiments.summary import interval, piped
from flatmin.experiments.sweep._grid import Grid, Point
from flatmin.experiments.sweep._queue import Standing

#: Settings of the search that are none of the training after it.
_SEARCH = ("validation", "seeds")


def report(
    grid: Grid,
    standings: list[Standing],
    order: Order,
    home: Path,
    console: Console,
) -> bool:
    """Print what is left, or else write and print what was found.

    Args:
        grid: what was tried.
        standings: of all points.
        order: what was asked for.
        home: where ``best.json`` and ``table.md`` go.
        console: to print on.

    Returns:
        Whether all points are trained.
    """
    left = [words(one.point) for one in standings if not one.errors]
    if left:
        console.print(
            f"{len(left)} of {len(standings)} points are left: {'; '.join(left)}. "
            "The same command continues.",
            highlight=False,
            markup=False,
        )
        return False
    first = best(standings)
    command = train_command(grid, order, first.point)
    with in_turn(home):
        write_json(home / "best.json", _record(grid, first, command))
        write(home / "table.md", markdown(standings))
    share = f"{100 * grid.arm.validation:g} % of the training images held out"
    for line in (
        f"{grid.cell.name}, {share}:",
        _table(standings),
        f"To train with the best: {command}",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return True


def best(standings: Iterable[Standing]) -> Standing:
    """The point with the lowest mean error; of equal ones, the first."""
    return min(standings, key=lambda one: _mean(one.errors))


def train_command(grid: Grid, order: Order, point: Point) -> str:
    """The command that trains the cell at a point, on all training images."""
    kept = [
        setting
        for setting in order.settings
        if setting.partition("=")[0] not in (*_SEARCH, *grid.axes)
    ]
    chosen = [f"{name}={value}" for name, value in point.items()]
    words = ["flatmin", "train", grid.cell.name]
    for setting in (*kept, *chosen):
        words += ["--set", setting]
    return shlex.join([*words, *(["--smoke"] if order.small else [])])


def markdown(standings: list[Standing]) -> str:
    """For documents; the best point is bold."""
    first = best(standings)
    heading = [*first.point, *_headings(standings)]
    lines = [heading, ["---"] * len(heading)]
    for one in standings:
        line = _cells(one)
        lines.append([f"**{x}**" for x in line] if one is first else line)
    return piped(lines)


def words(point: Point) -> str:
    """A point as people say it: ``rho 0.05, lr 0.1``."""
    return ", ".join(f"{name} {value}" for name, value in point.items())


def _table(standings: list[Standing]) -> Table:
    """For the terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    first = best(standings)
    for name in (*first.point, *_headings(standings)):
        table.add_column(name, justify="right")
    table.add_column("")
    for one in standings:
        table.add_row(*_cells(one), "best" if one is first else "")
    return table


def _headings(standings: list[Standing]) -> list[str]:
    n = len(standings[0].errors)
    spread = "" if n == 1 else f", mean ± 95 % interval of {n} seeds"
    return [f"validation error %{spread}"]


def _cells(one: Standing) -> list[str]:
    half = interval(one.errors)
    spread = "" if half is None else f" ± {half:.2f}"
    return [*map(str, one.point.values()), f"{_mean(one.errors):.2f}{spread}"]


def _record(grid: Grid, one: Standing, command: str) -> dict[str, object]:
    return {
        "cell": grid.cell.name,
        "point": one.point,
        "validation_error": _mean(one.errors),
        "interval": interval(one.errors),
        "errors": list(one.errors),
        "validation": grid.arm.validation,
        "train": command,
    }


def _mean(errors: tuple[float, ...]) -> float:
    return sum(errors) / len(errors)

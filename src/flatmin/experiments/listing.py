"""``flatmin recipes``: what can be run, as text of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from itertools import groupby
from typing import TypeVar

from flatmin.experiments.experiment import Experiment
from flatmin.experiments.recipes import RECIPES, Cell, Recipe

WIDTH = 80

Value = TypeVar("Value")


def every_recipe() -> str:
    """One line for each recipe."""
    lines = [f"{'recipe':<14}  {'cells':>5}  {'runs':>5}  what it shows"]
    for name, make in RECIPES.items():
        recipe = make()
        lines.append(
            f"{name:<14}  {len(recipe.cells):>5}  {runs(recipe):>5}  {recipe.title}"
        )
    return "\n".join(lines)


def one_recipe(recipe: Recipe) -> str:
    """Its cells, with the paper's numbers and what is trained, and its notes."""
    blocks = [f"{recipe.name}: {recipe.title}\n{_filled(work(recipe))}"]
    for prefix, cells in groupby(recipe.cells, lambda c: c.name.rpartition("/")[0]):
        blocks.append(_group(prefix, list(cells)))
    blocks += [_filled(note, "- ") for note in recipe.notes]
    return "\n\n".join(blocks)


def work(recipe: Recipe) -> str:
    """How much a recipe trains, in words."""
    epochs = sum(a.epochs * _times(a) for a in _arms(recipe) if a.steps is None)
    steps = sum((a.steps or 0) * _times(a) for a in _arms(recipe))
    amounts = [
        f"{amount * recipe.seeds:,} {unit}"
        for amount, unit in ((epochs, "epochs"), (steps, "steps"))
        if amount
    ]
    seeds = "1 seed" if recipe.seeds == 1 else f"{recipe.seeds} seeds"
    words = [f"{runs(recipe):,} runs with {seeds}", *amounts]
    if any(cell.paper and cell.paper.spread for cell in recipe.cells):
        words.append(f"± is the paper's {recipe.spread}")
    return "; ".join(words) + "."


def runs(recipe: Recipe) -> int:
    """How many runs there are, each counted once."""
    return len(_arms(recipe)) * recipe.seeds


def trained(cell: Cell) -> str:
    """What the arms of a cell are, in a few words."""
    if not cell.arms:
        return "quoted"
    alike = cell.arms[0]
    words = [] if alike.method in ("sam", "sgd") else [alike.method]
    words += [f"{key} {value}" for key, value in alike.method_options.items()]
    if alike.method != "sgd":
        words.append(f"rho {alike.rho:g}")
    if alphas := _distinct(arm.mixup for arm in cell.arms if arm.mixup):
        words.append("alpha " + _or([f"{alpha:g}" for alpha in alphas]))
    unit = "epochs" if alike.steps is None else "steps"
    lengths = _distinct((arm.steps or arm.epochs) * arm.length for arm in cell.arms)
    words.append(f"{_or([*map(str, lengths)])} {unit}")
    return ", ".join(words)


def _group(prefix: str, cells: list[Cell]) -> str:
    """Cells whose names differ in the last word alone."""
    where = ", ".join(cells[0].labels[:-1])
    rows = [
        (
            cell.name.rpartition("/")[2],
            cell.labels[-1],
            cell.paper.text if cell.paper else "",
            trained(cell),
        )
        for cell in cells
    ]
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = [
        "  ".join([*(f"{row[k]:<{widths[k]}}" for k in range(3)), row[3]])
        for row in rows
    ]
    return "\n".join([prefix, *([where] if where else []), *map(_indented, lines)])


def _or(words: list[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _indented(line: str) -> str:
    return _filled(line, "  ", "      ")


def _filled(text: str, first: str = "", others: str | None = None) -> str:
    others = " " * len(first) if others is None else others
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _arms(recipe: Recipe) -> list[Experiment]:
    """Of every folder, once."""
    return [
        a for arms in {c.folder: c.arms for c in recipe.cells}.values() for a in arms
    ]


def _times(arm: Experiment) -> int:
    return arm.length * (2 if arm.bootstrap else 1)


def _distinct(values: Iterable[Value]) -> list[Value]:
    return list(dict.fromkeys(values))

"""``flatmin methods``, ``recipes`` and ``fields``: lists in 80 columns."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from inspect import getdoc
from itertools import groupby
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from flatmin.experiments.cli.options import Json, recipe_names
from flatmin.experiments.cli.output import print_json, say
from flatmin.experiments.config import MOST_SEEDS, SETTABLE, Experiment
from flatmin.experiments.recipes import RECIPES, Cell, Recipe, recipe
from flatmin.experiments.table import counted
from flatmin.methods import METHODS

WIDTH = 80

Value = TypeVar("Value")


def methods(as_json: Json = False) -> None:
    """List the methods, with the gradients that a step of each takes."""
    lines = {name: entry.line.replace("``", "") for name, entry in METHODS.items()}
    rows = [(name, METHODS[name].gradients, line) for name, line in lines.items()]
    if as_json:
        names = ("name", "gradients", "summary")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    table = Table("method", "gradients", "what it does", box=None)
    for row in rows:
        table.add_row(*row)
    Console(emoji=False).print(table, highlight=False, markup=False)


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A recipe, or a part of one: table4/noise-40.",
            autocompletion=recipe_names,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the tables and figures of the paper, or the cells of one."""
    one = None if name is None else recipe(name)
    if as_json:
        print_json(every_summary() if one is None else asdict(one))
    else:
        say(every_recipe() if one is None else one_recipe(one))


def fields(as_json: Json = False) -> None:
    """List the fields that --set takes, with what they mean."""
    found = every_field()
    if as_json:
        print_json(found)
        return
    for one in found:
        seeds = one["name"] == "seeds"
        default = "its recipe's" if seeds else json.dumps(one["default"])
        say(_filled(f"{one['name']}: {one['type']}; default {default}", "", "    "))
        say(_filled(one["meaning"], "    "))


def every_field() -> list[dict[str, Any]]:
    """Return name, type, default and meaning of each field that ``--set`` takes."""
    schemas = Experiment.model_json_schema()["properties"]
    schemas["seeds"] = {"type": "integer", "minimum": 1, "maximum": MOST_SEEDS}
    meanings = _meanings() | {"seeds": "runs of each arm, with seeds 0, 1 and so on."}
    defaults = Experiment().model_dump(mode="json")
    return [
        {
            "name": name,
            "type": _kind(schemas[name]),
            "default": defaults.get(name),
            "meaning": meanings[name],
        }
        for name in SETTABLE
    ]


def _meanings() -> dict[str, str]:
    """Return the texts in the section "Attributes:" of `Experiment`, by name."""
    _, _, section = (getdoc(Experiment) or "").partition("Attributes:\n")
    section = section.replace("``", "").replace("None", "null")
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _kind(schema: dict[str, Any]) -> str:
    """Write a JSON schema in words: ``number > 0 or null``."""
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema:
        return _or(schema["enum"])
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    signs = {
        "minimum": ">=",
        "exclusiveMinimum": ">",
        "maximum": "<=",
        "exclusiveMaximum": "<",
    }
    bounds = [
        f"{sign} {_short(schema[key])}" for key, sign in signs.items() if key in schema
    ]
    return " ".join([schema["type"], ", ".join(bounds)]).strip()


def _short(number: float) -> str:
    return f"{number:,.0f}" if number < 10**12 and number % 1 == 0 else f"{number:g}"


def every_summary() -> list[dict[str, Any]]:
    """Return name, title and size of each recipe."""
    return [
        {
            "name": one.name,
            "title": one.title,
            "cells": len(one.cells),
            "runs": runs(one),
        }
        for one in (make() for make in RECIPES.values())
    ]


def every_recipe() -> str:
    """Write one line for each recipe."""
    lines = [f"{'recipe':<14}  {'cells':>5}  {'runs':>5}  what it shows"]
    for one in every_summary():
        name, cells, number = one["name"], one["cells"], one["runs"]
        lines.append(f"{name:<14}  {cells:>5}  {number:>5}  {one['title']}")
    return "\n".join(lines)


def one_recipe(recipe: Recipe) -> str:
    """Write a recipe's cells, with the paper's numbers and the arms, and its notes."""
    blocks = [f"{recipe.name}: {recipe.title}\n{_filled(work(recipe))}"]
    for prefix, cells in groupby(recipe.cells, lambda c: c.name.rpartition("/")[0]):
        blocks.append(_group(prefix, list(cells)))
    blocks += [_filled(note, "- ") for note in recipe.notes]
    return "\n\n".join(blocks)


def work(recipe: Recipe) -> str:
    """Say how much a recipe trains."""
    epochs = sum(a.epochs * _times(a) for a in _arms(recipe) if a.steps is None)
    steps = sum((a.steps or 0) * _times(a) for a in _arms(recipe))
    amounts = [
        f"{amount * recipe.seeds:,} {unit}"
        for amount, unit in ((epochs, "epochs"), (steps, "steps"))
        if amount
    ]
    seeds = counted(recipe.seeds, "seed")
    words = [f"{runs(recipe):,} runs with {seeds}", *amounts]
    if any(cell.paper and cell.paper.spread for cell in recipe.cells):
        words.append(f"± is the paper's {recipe.spread}")
    return "; ".join(words) + "."


def runs(recipe: Recipe) -> int:
    """Return how many runs a recipe has, each counted once."""
    return len(_arms(recipe)) * recipe.seeds


def trained(cell: Cell) -> str:
    """Describe the arms of a cell in a few words."""
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
    """Format cells whose names differ only in the last word."""
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
    """Return the arms of a recipe, once for each folder that cells share."""
    return [
        a for arms in {c.folder: c.arms for c in recipe.cells}.values() for a in arms
    ]


def _times(arm: Experiment) -> int:
    return arm.length * (2 if arm.bootstrap else 1)


def _distinct(values: Iterable[Value]) -> list[Value]:
    return list(dict.fromkeys(values))

"""Tables and figures that can be run, each a function that returns a recipe."""

from __future__ import annotations

from collections.abc import Callable

from flatmin.experiments.errors import BadInput, unknown
from flatmin.experiments.recipes._changed import changed, smoke
from flatmin.experiments.recipes._recipe import Cell, Metric, Paper, Recipe
from flatmin.experiments.recipes.appendix import c4, c5
from flatmin.experiments.recipes.figure1 import figure1
from flatmin.experiments.recipes.figure3 import figure3_left, figure3_middle
from flatmin.experiments.recipes.forecast import forecast
from flatmin.experiments.recipes.sst2 import sst2
from flatmin.experiments.recipes.table1 import table1
from flatmin.experiments.recipes.table2 import table2
from flatmin.experiments.recipes.table3 import table3, table10
from flatmin.experiments.recipes.table4 import table4, table8
from flatmin.experiments.recipes.table5 import table5
from flatmin.experiments.recipes.table9 import table9
from flatmin.experiments.recipes.table11 import table11

#: Every recipe by name.
RECIPES: dict[str, Callable[[], Recipe]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "table8": table8,
    "table9": table9,
    "table10": table10,
    "table11": table11,
    "figure1": figure1,
    "figure3-left": figure3_left,
    "figure3-middle": figure3_middle,
    "c4": c4,
    "c5": c5,
    "forecast": forecast,
    "sst2": sst2,
}


def recipe(name: str) -> Recipe:
    """Return a recipe by its name, or the part of it whose cells' names begin so.

    Raises:
        BadInput: there is none; the message has the nearest name.

    Example:
        >>> from flatmin.experiments.recipes import recipe
        >>> [cell.name for cell in recipe("table4/noise-40/sam").cells]
        ['table4/noise-40/sam']
    """
    whole = name.partition("/")[0]
    if whole not in RECIPES:
        raise BadInput(unknown("recipe", whole, RECIPES))
    return RECIPES[whole]().part(name)


__all__ = [
    "RECIPES",
    "Cell",
    "Metric",
    "Paper",
    "Recipe",
    "changed",
    "recipe",
    "smoke",
]

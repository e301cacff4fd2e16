"""The grid of a sweep; each of its points is an experiment."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from itertools import product
from types import NoneType
from typing import Any, get_args

from flatmin.experiments.config import FIELDS, Experiment, parsed, validated
from flatmin.experiments.errors import BadInput, shown
from flatmin.experiments.jobs import Request
from flatmin.experiments.recipes import Cell, Recipe, changed, recipe, smoke

#: Share of the training images that is held out: the paper's "10% of the training set".
VALIDATION = 0.1

#: The value of each field that the grid is over.
Point = dict[str, float]

#: Most points of a grid.
_MOST_POINTS = 10_000

#: How many names a message lists.
_MOST = 4


@dataclass(frozen=True, slots=True)
class Grid:
    """The points of a sweep.

    Attributes:
        cell: of the recipe.
        axes: the values of each field that is tried.
        arm: what all points have in common; it has the first value of each axis.
        seeds: runs per point, with seeds from 0 on.
    """

    cell: Cell
    axes: dict[str, tuple[float, ...]]
    arm: Experiment
    seeds: int

    @property
    def points(self) -> list[Point]:
        """Every combination of the axes' values, the last axis running fastest."""
        combinations = product(*self.axes.values())
        return [dict(zip(self.axes, values, strict=True)) for values in combinations]

    def experiment(self, point: Point, seed: int = 0) -> Experiment:
        """Return the experiment at a point.

        Raises:
            BadInput: it cannot be trained.
        """
        return validated(Experiment, {**self.arm.model_dump(), **point, "seed": seed})

    @property
    def name(self) -> str:
        """The cell's name, and a fingerprint of all settings besides the point."""
        settings = self.arm.model_dump(mode="json", exclude={*self.axes, "seed"})
        common = {"experiment": settings, "axes": sorted(self.axes)}
        text = json.dumps({**common, "seeds": self.seeds}, sort_keys=True)
        return f"{self.cell.name} {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def grid(request: Request) -> Grid:
    """Return the grid that was asked for.

    A list of values makes a numeric field an axis. Without a setting of rho, its axis
    is the recipe's; without one of ``validation``, 10 % are held out.

    Raises:
        BadInput: the name does not stand for one cell with one arm, nothing is held
            out, there is no axis, or a point cannot be trained.
    """
    values = parsed(request.settings, FIELDS)
    found = _one_cell(request.name, recipe(request.name))
    method = values.get("method", found.cells[0].arms[0].method)
    axes = {name: x for name, x in values.items() if _is_axis(name, x)}
    if "rho" not in values and method != "sgd":
        axes = {"rho": list(found.rhos), **axes}
    if not axes:
        raise BadInput("nothing to sweep; give a grid, as in --set 'lr=[0.05,0.1]'.")
    for name, numbers in axes.items():
        _check(name, numbers)
    if (points := math.prod(map(len, axes.values()))) > _MOST_POINTS:
        raise BadInput(f"a sweep has at most {_MOST_POINTS} points, got {points}.")
    single = {name: numbers[0] for name, numbers in axes.items()}
    given = {"validation": VALIDATION, **values, **single}
    settings = [f"{name}={json.dumps(value)}" for name, value in given.items()]
    return _checked(changed(smoke(found) if request.small else found, settings), axes)


def _is_axis(field: str, value: Any) -> bool:
    """Whether a list was given for a field that is a number."""
    if field in ("seed", "seeds") or not isinstance(value, list):
        return False
    kind = Experiment.model_fields[field].annotation
    return set(get_args(kind) or (kind,)) <= {int, float, NoneType}


def _check(field: str, numbers: list[Any]) -> None:
    if not numbers or any(type(x) not in (int, float) for x in numbers):
        raise BadInput(f"{field}: a grid is a list of numbers, got {shown(numbers)}.")
    if len(set(numbers)) < len(numbers):
        raise BadInput(f"{field}: the grid has a number twice: {shown(numbers)}.")


def _checked(made: Recipe, axes: dict[str, list[Any]]) -> Grid:
    """Return the grid, with its values as `Experiment` stores them."""
    arm = made.cells[0].arms[0]
    if not arm.validation:
        raise BadInput("validation: a sweep holds some training images out, got 0.")
    given = Grid(made.cells[0], {k: tuple(x) for k, x in axes.items()}, arm, made.seeds)
    tried = [given.experiment(point) for point in given.points]
    proper = {k: tuple(dict.fromkeys(getattr(x, k) for x in tried)) for k in axes}
    return replace(given, axes=proper)


def _one_cell(name: str, part: Recipe) -> Recipe:
    """Return the recipe with only the one cell that is trained.

    Raises:
        BadInput: there are several, none, or it has several arms.
    """
    trained = [cell for cell in part.cells if cell.arms]
    if len(trained) == 1 and len(trained[0].arms) == 1:
        return part.part(trained[0].name)
    inside = _sweepable(part) or _sweepable(recipe(part.name))
    advice = f" Choose one, such as {', '.join(inside)}." if inside else ""
    raise BadInput(
        f"{name} is not what a sweep needs, which is one cell with one arm.{advice}"
    )


def _sweepable(part: Recipe) -> list[str]:
    ones = [cell for cell in part.cells if len(cell.arms) == 1]
    return [cell.name for cell in ones if cell.arms[0].method != "sgd"][:_MOST]

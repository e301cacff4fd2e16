"""Warn of settings that were chosen at the edge of their grid, and widen the grid."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

from pydantic import ValidationError

from flatmin.experiments.compare.plan import BASE, Comparison
from flatmin.experiments.compare.results import Row

#: The values of some fields of a comparison.
_Grids = dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class _Edge:
    """Where a setting lies, such as ``"rho 0.5, the largest"``, and in which grid."""

    words: str
    grid: str
    upper: bool


def warning(what: Comparison, row: Row) -> str:
    """Say which settings of a row lie at the edge of their grid; empty if none does.

    A grid of one value has no edge. The shortest of two lengths is not reported.

    Args:
        what: the comparison.
        row: of a method.
    """
    edges = list(_edges(what, row))
    if not edges:
        return ""
    words = ", and ".join(one.words for one in edges)
    wider = {one.grid: _wider(getattr(what, one.grid), one.upper) for one in edges}
    settings = shlex.join(_settings(_fair(what, wider)))
    return (
        f"{row.label} chose {words} that was tried; what lies beyond may be better. "
        f"Widen the grid: {settings}, with another --out."
    )


def _edges(what: Comparison, row: Row) -> Iterator[_Edge]:
    base = row.arm == BASE
    field, grid = ("lr", "lrs") if base else ("rho", "rhos")
    tried, one = what.candidates(row.setting, row.arm), row.experiment
    value, values = getattr(one, field), sorted({getattr(x, field) for x in tried})
    name, epochs = f"{field} {value:g}", sorted({x.epochs for x in tried})
    if len(values) > 1 and value == values[-1]:
        yield _Edge(f"{name}, the largest", grid, upper=True)
    elif len(values) > 1 and value == values[0]:
        yield _Edge(f"{name}, the smallest", grid, upper=False)
    name, grid = f"{one.epochs} epochs", "lengths" if base else "sam_lengths"
    if len(epochs) > 1 and one.epochs == epochs[-1]:
        yield _Edge(f"{name}, the longest", grid, upper=True)
    elif len(epochs) > 2 and one.epochs == epochs[0] > 1:
        yield _Edge(f"{name}, the shortest", grid, upper=False)


def _wider(grid: tuple[float, ...], upper: bool) -> tuple[float, ...]:
    values = sorted(grid)
    return (*values, 2 * values[-1]) if upper else (values[0] / 2, *values)


def _fair(what: Comparison, grids: _Grids) -> _Grids:
    """Add lengths and learning rates of the base, until SAM has no more tries."""
    for field in cycle(("lrs", "lengths")):
        try:
            Comparison.model_validate({**what.model_dump(), **grids})
        except ValidationError:
            tried = grids.get(field) or getattr(what, field)
            grids = {**grids, field: _wider(tried, upper=True)}
        else:
            break
    return grids


def _settings(grids: _Grids) -> Iterator[str]:
    for field, values in grids.items():
        yield from ("--set", f"{field}={json.dumps(values, separators=(',', ':'))}")

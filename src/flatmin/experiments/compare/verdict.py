"""A comparison's verdict in three sentences, and its caveats, such as narrow grids."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from flatmin.experiments.compare.plan import BASE, MOST, Comparison
from flatmin.experiments.compare.results import Row, best, best_base, best_other
from flatmin.experiments.intervals import Paired, mean, paired
from flatmin.experiments.table import counted

#: Errors on the training labels, beyond the noise, at which they count as fitted.
_FITTED = 5.0


#: The values of some fields of a comparison.
_Grids = dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, and what to know before doing it.

    Attributes:
        sentences: what to use, what it gains, what it costs.
        warnings: what makes this less certain than it looks.
    """

    sentences: tuple[str, str, str]
    warnings: tuple[str, ...]


def verdict(
    what: Comparison, rows: list[Row], validation_images: int, shared: list[str]
) -> Verdict:
    """Return the verdict on the rows of one setting.

    Args:
        what: the comparison.
        rows: of all arms.
        validation_images: on how many images each seed's settings were chosen.
        shared: sentences on images that are trained on and tested on.
    """
    base, rival, winner = best_base(rows), best_other(rows), best(rows)
    gain = paired(base.errors, rival.errors)
    use = rival if rival is winner and gain.shown and gain.mean > 0 else base
    return Verdict(
        (_use(use), _gains(base, rival, gain), _costs(base, rival)),
        (
            *shared,
            *_warnings(base, rival, validation_images),
            *filter(None, (edge_warning(what, row) for row in (base, rival))),
        ),
    )


def _use(row: Row) -> str:
    noun = "its validation error was"
    return (
        f"Use {row.label} with {row.choice}: {noun} {mean(row.validation):.2f} %, "
        f"the best of {row.tries} tries."
    )


def _gains(base: Row, rival: Row, gain: Paired) -> str:
    n = len(base.errors)
    numbers = (
        f"{rival.label} errs on {rival.error:.2f} % of the test images, and "
        f"{base.label} at its best on {base.error:.2f} %"
    )
    if gain.half is None:
        return f"{numbers}; with one seed, no interval says what that is worth."
    low, high = gain.mean - gain.half, gain.mean + gain.half
    interval = f"{gain.mean:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
    if not gain.shown:
        return f"No difference shown: {numbers} ({interval}, {n} paired seeds)."
    word = "fewer" if gain.mean > 0 else "more"
    size = abs(gain.mean)
    return f"{numbers}: {size:.2f} points {word} ({interval}, {n} paired seeds)."


def _costs(base: Row, rival: Row) -> str:
    ratio = rival.gradient_examples / base.gradient_examples
    search = rival.search_examples / max(base.search_examples, 1)
    return (
        f"A run of {rival.label} takes {ratio:.2f} times the gradients of that run of "
        f"{base.label} ({rival.mean('seconds'):.1f} s against "
        f"{base.mean('seconds'):.1f} s), and choosing its settings took {search:.2f} "
        "times the gradients."
    )


def _warnings(base: Row, rival: Row, validation_images: int) -> list[str]:
    found = [_unfitted(row) for row in (base, rival)]
    found += [_too_close(base, rival, validation_images), _few_seeds(base)]
    return [one for one in found if one]


def _unfitted(row: Row) -> str:
    error, noise = row.mean("train_error"), 100 * row.experiment.noise
    if not error > noise + _FITTED:
        return ""
    return (
        f"{row.label} did not fit its training set: it errs on {error:.1f} % of the "
        "images that it was trained on. Train longer, or try other settings."
    )


def _too_close(base: Row, rival: Row, images: int) -> str:
    """Say so if there are too few validation images to tell the two apart."""
    a, b = mean(base.validation) / 100, mean(rival.validation) / 100
    n = images * len(base.validation)
    error = 100 * math.sqrt(max(a * (1 - a) + b * (1 - b), 1e-12) / n)
    if 100 * abs(a - b) >= 2 * error:
        return ""
    seeds = counted(len(base.validation), "seed")
    return (
        f"{images} validation images with {seeds} have a standard error of "
        f"{error:.1f} points and cannot tell {rival.label} ({100 * b:.2f} %) from "
        f"{base.label} ({100 * a:.2f} %)."
    )


def _few_seeds(base: Row) -> str:
    if len(base.errors) > 1:
        return ""
    return "One seed ran: set seeds=3 or more before believing a difference."


#: How often both grids of the base are widened at most.
_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class _Edge:
    """Where a setting lies, such as ``"rho 0.5, the largest"``, and in which grid."""

    words: str
    grid: str
    upper: bool


def edge_warning(what: Comparison, row: Row) -> str:
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
    grids = _fair(what, wider)
    said = f"{row.label} chose {words} that was tried; what lies beyond may be better."
    if grids is None:
        return said
    return f"{said} Widen the grid: {shlex.join(_settings(grids))}, with another --out."


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


def _fair(what: Comparison, grids: _Grids) -> _Grids | None:
    """Add lengths and learning rates of the base, until SAM has no more tries.

    None if that would take values that a comparison does not have.
    """
    for field in _ROUNDS * ("lrs", "lengths"):
        try:
            Comparison.model_validate({**what.model_dump(), **grids})
        except ValidationError:
            more = _wider(grids.get(field) or getattr(what, field), upper=True)
            grids = {**grids, field: more} if max(more) <= MOST else grids
        else:
            return grids
    return None


def _settings(grids: _Grids) -> Iterator[str]:
    for field, values in grids.items():
        yield from ("--set", f"{field}={json.dumps(values, separators=(',', ':'))}")

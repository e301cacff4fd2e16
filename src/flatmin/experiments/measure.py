"""``flatmin sharpness``: the flatness of what finished runs have found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flatmin.core import TwoPoint, scales
from flatmin.diagnostics import (
    eigenvalues,
    m_sharpness,
    sharpness,
    trace,
    worst_sharpness,
)
from flatmin.experiments.errors import BadInput, shown
from flatmin.experiments.runs.opened import Finished, paths, percent

#: Examples per pass, rounded down to a multiple of m.
_BATCH = 1024

#: Examples per group, at most.
_MOST = 1_000_000

#: The ball that does not change when layers are rescaled, biases included.
_ADAPTIVE = TwoPoint(scale=scales.Magnitude())


def check(rho: float | None, m: int) -> None:
    """Refuse numbers that `measure` cannot use, before a run is opened for them.

    Args:
        rho: as `measure` takes it.
        m: as `measure` takes it.

    Raises:
        BadInput: the radius is not finite and positive, or ``m`` is not from 1 to a
            million.
    """
    if rho is not None and not 0 < rho < float("inf"):
        raise BadInput(f"--rho must be finite and above 0, got {rho:g}.")
    if m < 1:
        raise BadInput(f"--m must be at least 1, got {shown(m)}.")
    if m > _MOST:
        raise BadInput(f"--m must be at most {_MOST:,}, got {shown(m)}.")


def measure(
    runs: Sequence[Finished], rho: float | None, m: int, console: Console
) -> list[dict[str, Any]]:
    """Measure the flatness of finished runs.

    Args:
        runs: that are opened.
        rho: the radius; the runs' own if not given.
        m: examples per group of m-sharpness.
        console: shows which run is measured.

    Returns:
        A record of each run: what it is, and the numbers.

    Raises:
        BadInput: a run cannot be measured; or the runs differ in their radius, and none
            is given.
    """
    radius = rho or _common_radius(runs)
    found: list[dict[str, Any]] = []
    for run, path in zip(runs, paths(runs), strict=True):
        with console.status(escape(f"measuring {run.folder}")):
            numbers = _measured(run, radius, m)
        what = {"run": path, **run.words}
        found.append({**what, "rho": radius, "m": m, **numbers})
    return found


def table(found: Sequence[dict[str, Any]]) -> Table:
    """Draw the records of `measure` for the terminal."""
    titles = [name for name in ("noise", "method", "seed") if name in found[0]]
    who = [[_shown(name, one[name]) for name in titles] for one in found]
    if len(set(map(tuple, who))) < len(who):
        titles = ["run", *titles]
        who = [[one["run"], *w] for one, w in zip(found, who, strict=True)]
    drawn = Table(*titles, box=None, pad_edge=False, collapse_padding=True)
    first = found[0]
    columns = {
        "sharpness": f"sharpness {first['rho']:g}",
        "worst_sharpness": "worst",
        "m_sharpness": f"m = {first['m']}",
        "adaptive_sharpness": "adaptive",
        "lambda_max": "lambda_max",
        "trace": "trace",
    }
    for title in columns.values():
        drawn.add_column(title, justify="right", no_wrap=True)
    for words, one in zip(who, found, strict=True):
        drawn.add_row(*map(Text, words), *(f"{one[name]:.4g}" for name in columns))
    return drawn


def _shown(name: str, value: Any) -> str:
    return percent(value) if name == "noise" else str(value)


def _common_radius(runs: Sequence[Finished]) -> float:
    radii = sorted({run.rho for run in runs})
    if len(radii) > 1:
        several = ", ".join(f"{radius:g}" for radius in radii)
        raise BadInput(
            f"these runs measure sharpness at different radii ({several}). Choose one "
            "for all with --rho."
        )
    return radii[0]


def _measured(run: Finished, rho: float, m: int) -> dict[str, float]:
    """The numbers of a run, on its training set with the labels it was trained on."""
    objective = run.objective(max(m, _BATCH - _BATCH % m))
    try:
        return {
            "sharpness": sharpness(objective, rho).value,
            "worst_sharpness": worst_sharpness(objective, rho).value,
            "m_sharpness": m_sharpness(objective, rho, m).value,
            "adaptive_sharpness": sharpness(objective, rho, within=_ADAPTIVE).value,
            "lambda_max": eigenvalues(objective, 1).value,
            "trace": trace(objective, draws=30).value,
        }
    except (ValueError, RuntimeError) as error:
        raise BadInput(f"{run.folder} cannot be measured: {error}") from None

"""``flatmin sharpness``: the flatness of what finished runs have found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flatmin.core import TwoPoint, scales
from flatmin.diagnostics import (
    Measurement,
    eigenvalues,
    m_sharpness,
    sharpness,
    trace,
    worst_sharpness,
)
from flatmin.experiments.errors import BadInput
from flatmin.experiments.finished import Finished, paths, percent
from flatmin.experiments.opening import finished

#: Examples per pass, rounded down to a multiple of m.
_BATCH = 1024

_ADAPTIVE = TwoPoint(scale=scales.Adaptive(0.01))


def measure(
    folders: Sequence[Path], data: Path, rho: float | None, m: int, console: Console
) -> None:
    """Print a table of the finished runs in some folders.

    Args:
        folders: of runs, or above runs.
        data: where the data sets of ``flatmin train`` are.
        rho: the radius; the runs' own if not given.
        m: examples per group of m-sharpness.
        console: where to print.

    Raises:
        BadInput: as of `flatmin.experiments.opening.finished`; or the runs differ in
            their radius, and none is given.
    """
    if rho is not None and not 0 < rho < float("inf"):
        raise BadInput(f"--rho must be finite and above 0, got {rho:g}.")
    if m < 1:
        raise BadInput(f"--m must be at least 1, got {m}.")
    runs = finished(folders, data)
    radius = rho or _common_radius(runs)
    rows: list[list[tuple[str, Measurement]]] = []
    for run in runs:
        with console.status(f"measuring {run.folder}"):
            rows.append(_measured(run, radius, m))
    who = [[percent(run.noise), run.method, str(run.seed)] for run in runs]
    titles = ["noise", "method", "seed"]
    if len(set(map(tuple, who))) < len(who):
        titles = ["run", *titles]
        who = [[path, *w] for path, w in zip(paths(runs), who, strict=True)]
    table = Table(*titles, box=None)
    for title, _ in rows[0]:
        table.add_column(title, justify="right", no_wrap=True)
    for words, found in zip(who, rows, strict=True):
        table.add_row(*words, *(f"{one.value:.4g}" for _, one in found))
    console.print(table)


def _common_radius(runs: Sequence[Finished]) -> float:
    radii = sorted({run.rho for run in runs})
    if len(radii) > 1:
        several = ", ".join(f"{radius:g}" for radius in radii)
        raise BadInput(
            f"these runs measure sharpness at different radii ({several}). Choose one "
            "for all with --rho."
        )
    return radii[0]


def _measured(run: Finished, rho: float, m: int) -> list[tuple[str, Measurement]]:
    """The columns of a run, on its training set with the labels it was trained on."""
    objective = run.objective(max(m, _BATCH - _BATCH % m))
    try:
        return [
            (f"sharpness {rho:g}", sharpness(objective, rho)),
            ("worst", worst_sharpness(objective, rho)),
            (f"m = {m}", m_sharpness(objective, rho, m)),
            ("adaptive", sharpness(objective, rho, within=_ADAPTIVE)),
            ("lambda_max", eigenvalues(objective, 1)),
            ("trace", trace(objective, draws=30)),
        ]
    except (ValueError, RuntimeError) as error:
        raise BadInput(f"{run.folder} cannot be measured: {error}") from None

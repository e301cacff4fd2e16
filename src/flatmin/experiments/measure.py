"""``flatmin sharpness``: the flatness of what a comparison has trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy

from flatmin.core import TwoPoint, scales
from flatmin.diagnostics import (
    Measurement,
    Objective,
    eigenvalues,
    m_sharpness,
    sharpness,
    trace,
    worst_sharpness,
)
from flatmin.experiments.comparison import finished
from flatmin.experiments.data import Data
from flatmin.experiments.errors import BadInput
from flatmin.experiments.store import RunStore
from flatmin.experiments.train import Run, percent

#: Examples per pass, rounded down to a multiple of m.
_BATCH = 1024

_ADAPTIVE = TwoPoint(scale=scales.Adaptive(0.01))


def measure(
    folders: Sequence[Path], rho: float | None, m: int, console: Console
) -> None:
    """Print a table of the finished runs in some folders.

    Args:
        folders: each is what ``flatmin compare`` wrote, or a part of it.
        rho: the radius; the comparison's own if not given.
        m: examples per group of m-sharpness.
        console: where to print.

    Raises:
        BadInput: a folder holds no finished run, or its data has changed.
    """
    if rho is not None and not 0 < rho < float("inf"):
        raise BadInput(f"--rho must be finite and above 0, got {rho:g}.")
    if m < 1:
        raise BadInput(f"--m must be at least 1, got {m}.")
    table: Table | None = None
    for folder in folders:
        opened = finished(folder)
        root, radius = opened.root, rho or opened.config.sharpness_rho
        for run in opened.runs:
            where = run.folder(root).relative_to(root)
            with console.status(f"measuring {where}"):
                found = _measured(run, opened.data, root, radius, m)
            table = table or _titles(found)
            who = percent(run.noise), run.arm.label, str(run.seed)
            table.add_row(*who, *(f"{one.value:.4g}" for _, one in found))
    console.print(table)


def _measured(
    run: Run, data: Data, root: Path, rho: float, m: int
) -> list[tuple[str, Measurement]]:
    """The columns of a run, on its training set with the labels it was trained on."""
    model = run.model(data)
    model.load_state_dict(RunStore(run.folder(root)).weights())
    size = max(m, _BATCH - _BATCH % m)
    pairs = zip(data.x.split(size), run.labels(data).split(size), strict=True)
    try:
        objective = Objective(model.eval(), cross_entropy, list(pairs))
        return [
            (f"sharpness {rho:g}", sharpness(objective, rho)),
            ("worst", worst_sharpness(objective, rho)),
            (f"m = {m}", m_sharpness(objective, rho, m)),
            ("adaptive", sharpness(objective, rho, within=_ADAPTIVE)),
            ("lambda_max", eigenvalues(objective, 1)),
            ("trace", trace(objective, draws=30)),
        ]
    except (ValueError, RuntimeError) as error:
        raise BadInput(f"{run.folder(root)} cannot be measured: {error}") from None


def _titles(found: list[tuple[str, Measurement]]) -> Table:
    table = Table("noise", "method", "seed", box=None)
    for title, _ in found:
        table.add_column(title, justify="right", no_wrap=True)
    return table

"""``flatmin sharpness``: the flatness of what a comparison has trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
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
from flatmin.experiments.compare import grid
from flatmin.experiments.config import Comparison
from flatmin.experiments.data import Data, load
from flatmin.experiments.errors import BadInput
from flatmin.experiments.store import RunStore, read_json
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
        root, config, data, runs = _opened(folder)
        for run in runs:
            where = run.folder(root).relative_to(root)
            with console.status(f"measuring {where}"):
                found = _measured(run, data, root, rho or config.sharpness_rho, m)
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


def _opened(folder: Path) -> tuple[Path, Comparison, Data, list[Run]]:
    """The comparison that a folder belongs to, its data, and the finished runs."""
    root = next((f for f in _upwards(folder) if (f / "config.json").is_file()), None)
    if root is None:
        raise BadInput(f"{folder} is no run folder of flatmin compare.")
    stored: Any = read_json(root / "config.json")
    try:
        config = Comparison.model_validate(stored["config"])
        digest = stored["data_sha256"]
    except (KeyError, TypeError, ValidationError):
        raise BadInput(f"{root / 'config.json'} is damaged.") from None
    inside = [run for run in grid(config) if _is_in(run.folder(root), folder)]
    runs = [run for run in inside if RunStore(run.folder(root)).result() is not None]
    if not runs:
        raise BadInput(f"{folder} holds no finished run. Let flatmin compare finish.")
    data = load(config)
    if data.digest() != digest:
        raise BadInput(f"the images are not those that {root} was trained on.")
    return root, config, data, runs


def _upwards(folder: Path) -> Iterable[Path]:
    """The folder and the three above it, the depth of a run in its comparison."""
    here = folder.resolve()
    return [here, *list(here.parents)[:3]]


def _is_in(run: Path, folder: Path) -> bool:
    return run.resolve().is_relative_to(folder.resolve())


def _titles(found: list[tuple[str, Measurement]]) -> Table:
    table = Table("noise", "method", "seed", box=None)
    for title, _ in found:
        table.add_column(title, justify="right", no_wrap=True)
    return table

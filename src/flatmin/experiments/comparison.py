"""The folder of a comparison: which runs it has, and those that are finished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flatmin.experiments.config import ARMS, Comparison
from flatmin.experiments.data import Data, load
from flatmin.experiments.errors import BadInput
from flatmin.experiments.finished import Finished, Reader, device_like, restored
from flatmin.experiments.store import RunStore
from flatmin.experiments.train import Run, percent


def grid(config: Comparison) -> Iterator[Run]:
    """All runs, seed by seed, so that an early look sees every arm."""
    for noise in config.noise:
        for seed in range(config.seeds):
            for arm in ARMS:
                yield Run(config, arm, noise, seed)


def finished(root: Path, stored: Any, inside: Path) -> list[Finished]:
    """The finished runs of a comparison.

    Args:
        root: its folder.
        stored: what is in its ``config.json``.
        inside: the runs in this folder; resolved, as ``root`` is.

    Raises:
        BadInput: ``stored`` is damaged, or the images have changed.
    """
    try:
        config = Comparison.model_validate(stored["config"])
        digest = stored["data_sha256"]
    except (KeyError, TypeError, ValidationError):
        raise BadInput(f"{root / 'config.json'} is damaged.") from None
    runs = [run for run in grid(config) if run.folder(root).is_relative_to(inside)]
    runs = [run for run in runs if RunStore(run.folder(root)).result() is not None]
    if not runs:
        return []
    data = load(config)
    if data.digest() != digest:
        raise BadInput(f"the images are not those that {root} was trained on.")
    data = data.to(str(device_like(config.device)))
    return [opened(run, data, root) for run in runs]


def opened(run: Run, data: Data, root: Path) -> Finished:
    """A finished run.

    Args:
        run: which.
        data: what it was trained on.
        root: the folder of its comparison.
    """
    folder = run.folder(root).resolve()
    return Finished(
        folder=folder,
        title=f"{run.arm.label}, {percent(run.noise)} label noise",
        method=run.arm.label,
        noise=run.noise,
        seed=run.seed,
        classes=len(data.classes),
        rho=run.config.sharpness_rho,
        read=_reader(run, data, folder),
    )


def _reader(run: Run, data: Data, folder: Path) -> Reader:
    def read(size: int) -> Any:
        pairs = zip(data.x.split(size), run.labels(data).split(size), strict=True)
        return restored(run.model(data), folder), list(pairs)

    return read

"""The folder of a comparison: which runs it has, and those that are finished."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flatmin.experiments.config import ARMS, Comparison
from flatmin.experiments.data import Data, load
from flatmin.experiments.errors import BadInput
from flatmin.experiments.store import RunStore, read_json
from flatmin.experiments.train import Run


@dataclass(frozen=True, slots=True)
class Finished:
    """Runs that can be looked at.

    Attributes:
        root: the folder of their comparison.
        config: what was compared.
        data: what they were trained on, on the device of the comparison.
        runs: at least one.
    """

    root: Path
    config: Comparison
    data: Data
    runs: list[Run]


def grid(config: Comparison) -> Iterator[Run]:
    """All runs, seed by seed, so that an early look sees every arm."""
    for noise in config.noise:
        for seed in range(config.seeds):
            for arm in ARMS:
                yield Run(config, arm, noise, seed)


def finished(folder: Path) -> Finished:
    """The finished runs in a folder.

    Args:
        folder: what ``flatmin compare`` wrote, or a part of it, down to one run.

    Raises:
        BadInput: it is something else, damaged, or without a finished run, or the
            images have changed.
    """
    root = next((f for f in _upwards(folder) if (f / "config.json").is_file()), None)
    if root is None:
        raise BadInput(
            f"{folder} is no run folder of flatmin compare. Give one, or a part of it "
            "such as runs/compare/noise-40/sam/seed-0."
        )
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
    return Finished(root, config, data.to(config.device), runs)


def _upwards(folder: Path) -> list[Path]:
    """The folder and the three above it, the depth of a run in its comparison."""
    here = folder.resolve()
    return [here, *list(here.parents)[:3]]


def _is_in(run: Path, folder: Path) -> bool:
    return run.resolve().is_relative_to(folder.resolve())

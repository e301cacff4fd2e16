"""The runs of a comparison: what each is, where it lives, and which are finished."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flatmin.experiments.config import ARMS, DIGITS, Arm, Comparison
from flatmin.experiments.data import load
from flatmin.experiments.errors import BadInput
from flatmin.experiments.experiment import Experiment
from flatmin.experiments.finished import Finished
from flatmin.experiments.store import RunStore
from flatmin.experiments.trained import opened


@dataclass(frozen=True, slots=True)
class Run:
    """One training run of a comparison."""

    config: Comparison
    arm: Arm
    noise: float
    seed: int

    @property
    def epochs(self) -> int:
        """How often the run sees the training set."""
        return self.config.epochs * self.arm.length

    @property
    def cost(self) -> int:
        """The run's share of the work: epochs times gradients per example."""
        return self.epochs * self.arm.cost

    @property
    def experiment(self) -> Experiment:
        """What is trained. Arms of one seed share initial weights, order and noise."""
        config = self.config
        return Experiment(
            data=config.data,
            image_size=None if config.data == DIGITS else config.image_size,
            noise=self.noise,
            augment=(),
            model="small-convnet",
            model_options={"width": config.width},
            method=self.arm.method,
            rho=config.rho,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            batch_size=config.batch_size,
            epochs=config.epochs,
            length=self.arm.length,
            seed=self.seed,
            device=config.device,
            flatness_rho=config.sharpness_rho,
        )

    def folder(self, root: Path) -> Path:
        """Where the run lives."""
        return root / noise_name(self.noise) / self.arm.name / f"seed-{self.seed}"


def noise_name(noise: float) -> str:
    """A folder name for a share of label noise."""
    return f"noise-{100 * noise:g}"


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
    return [opened(run.folder(root), run.experiment, lambda: data) for run in runs]

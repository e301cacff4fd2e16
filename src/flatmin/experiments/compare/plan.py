"""The plan of a comparison: the settings, the arms, and every candidate of each.

Settings are chosen on images that candidates are not trained on: for the base
optimizer, the length of its schedule and its learning rate; for SAM, its radius and
length, at the learning rate that the base chose. The base has at least as many tries
and gradients as SAM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flatmin.experiments.config import Experiment, validated

#: Epochs between two tests of a run that is tested only at its end.
NEVER = 1_000_000

#: Points of a learning curve.
POINTS = 10

_OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}

#: The largest multiple of epochs or of the learning rate, and the largest radius.
MOST = 1000

#: The largest decay of an average with six digits.
_SLOWEST = 0.999999


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train.

    Attributes:
        name: of its folder.
        method: of its experiments; ``"sgd"`` is the base optimizer alone.
        words: its name in tables; empty for the base, whose name is the optimizer's.
        cost: gradients per example and epoch.
    """

    name: str
    method: str
    words: str
    cost: float

    def label(self, optimizer: str, *, averaged: bool = False) -> str:
        """Return the arm's name in tables, such as ``"SAM, averaged"``."""
        name = self.words or _OPTIMIZERS[optimizer]
        return f"{name}, averaged" if averaged else name


BASE = Arm("base", "sgd", "", 1.0)

#: The base optimizer, the paper's method, and the cheap method with the best evidence.
ARMS = (
    BASE,
    Arm("sam", "sam", "SAM", 2.0),
    Arm("subset-sam", "subset_sam", "SAM on a quarter", 1.25),
)


class Setting(BaseModel):
    """One condition under which all arms are compared.

    Attributes:
        name: of its folder: ``noise-40``.
        label: what tables call it.
        fields: of `Experiment`, in which it differs from the comparison's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    label: str
    fields: dict[str, Any] = Field(default_factory=dict)


class Comparison(BaseModel):
    """Everything that decides the numbers of ``flatmin compare``.

    Attributes:
        experiment: what all runs have in common.
        settings: the conditions, each with a table of its own.
        seeds: paired runs per arm; each has its own initial weights, order and noise.
        search_seeds: how many of these seeds settings are chosen with.
        lengths: lengths of the base's schedule, in multiples of ``epochs``.
        lrs: learning rates of the base, in multiples of ``lr``.
        rhos: radii of SAM. It takes the learning rate that the base chose.
        sam_lengths: lengths of SAM's schedule, in multiples of ``epochs``.
        average: share of the schedule over which the average of the weights reaches
            back.
        validation: share of the training images on which settings are chosen.
        landscape_points: along each axis of a landscape; 0 draws none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    experiment: Experiment
    settings: tuple[Setting, ...] = Field(min_length=1)
    seeds: int = Field(default=3, ge=1, le=1000)
    search_seeds: int = Field(default=3, ge=1, le=1000)
    lengths: tuple[float, ...] = Field(default=(0.125, 0.25, 0.5, 1, 2), min_length=1)
    lrs: tuple[float, ...] = Field(default=(0.5, 1, 2), min_length=1)
    rhos: tuple[float, ...] = Field(default=(0.02, 0.05, 0.1), min_length=1)
    sam_lengths: tuple[float, ...] = Field(default=(0.5, 1), min_length=1)
    average: float = Field(default=0.1, gt=0, le=1)
    validation: float = Field(default=0.1, gt=0, lt=1)
    landscape_points: int = Field(default=21, ge=0, le=101)

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a base with fewer tries or gradients than SAM, or planes of one point.

        Raises:
            ValueError: the base has fewer tries or gradients than SAM, a number is out
                of range, or comes twice.
        """
        del context
        for name in ("lengths", "lrs", "rhos", "sam_lengths"):
            values = getattr(self, name)
            if not 0 < min(values) <= max(values) <= MOST or _twice(values):
                raise ValueError(
                    f"{name} must be above 0, at most {MOST}, and distinct, got "
                    f"{values}"
                )
        if _twice([one.name for one in self.settings]):
            raise ValueError("two settings have the same name; their runs would mix")
        if self.landscape_points == 1:
            raise ValueError("landscape_points must be 0, or at least 2, got 1")
        for setting in self.settings:
            self._check_fair(setting)

    def _check_fair(self, setting: Setting) -> None:
        tries, epochs = self._search(setting, BASE)
        for arm in ARMS[1:]:
            more, longer = self._search(setting, arm)
            if more > tries or longer > epochs:
                raise ValueError(
                    f"{arm.words} would have {more} tries with the gradients of "
                    f"{longer:g} epochs, and the base {tries} with {epochs:g}: "
                    "give the base more lengths or lrs"
                )

    def _search(self, setting: Setting, arm: Arm) -> tuple[int, float]:
        """Return how many candidates an arm has, and the cost of all in epochs."""
        epochs = setting.fields.get("epochs", self.experiment.epochs)
        if not isinstance(epochs, int):
            raise ValueError(f"epochs must be a whole number, got {epochs!r}")
        lengths, others = self._grid(arm)
        # Lengths below one epoch become one epoch, and equal candidates one.
        each = {_whole(epochs, length) for length in lengths}
        return len(each) * len(others), arm.cost * sum(each) * len(others)

    def _grid(self, arm: Arm) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the lengths that an arm tries, and its learning rates or radii."""
        if arm == BASE:
            return self.lengths, self.lrs
        return self.sam_lengths, self.rhos

    def tries(self, arm: Arm) -> int:
        """Return how many candidates an arm has, at most."""
        return max(self._search(setting, arm)[0] for setting in self.settings)

    def common(self, setting: Setting) -> Experiment:
        """Return the experiment that the runs of a setting have in common.

        Raises:
            BadInput: its fields do not fit together.
        """
        fields = {**self.experiment.model_dump(), **setting.fields}
        return validated(Experiment, fields)

    def candidates(
        self, setting: Setting, arm: Arm, lr: float | None = None
    ) -> list[Experiment]:
        """Return the candidates from which an arm's settings are chosen.

        They are in the order of ``lengths`` or ``sam_lengths``.

        Args:
            setting: under which they are trained.
            arm: the way to train.
            lr: learning rate that the base chose, for the other arms; None for the
                comparison's own.

        Raises:
            BadInput: as of `common`, or a multiple of epochs or lr is too large.
        """
        one = self.common(setting)
        if arm == BASE:
            changes = [
                {"epochs": _whole(one.epochs, length), "lr": one.lr * lr, "rho": 0.0}
                for length, lr in product(self.lengths, self.lrs)
            ]
        else:
            changes = [
                {"epochs": _whole(one.epochs, length), "lr": lr or one.lr, "rho": rho}
                for length, rho in product(self.sam_lengths, self.rhos)
            ]
        found: list[Experiment] = []
        for change in changes:
            fields = {**one.model_dump(), **change, "method": arm.method}
            made = validated(Experiment, fields)
            if made not in found:  # Lengths below one epoch become one epoch.
                found.append(made)
        return found

    def decay(self, one: Experiment, images: int) -> float:
        """Return the decay of an average over the last ``average`` of the schedule.

        Args:
            one: a candidate.
            images: how many it is trained on.
        """
        return decay_over(self.average * one.epochs * images / one.batch_size)

    def search(self, candidate: Experiment, images: int, seed: int) -> Experiment:
        """Return the run that tells how good a candidate is.

        It is tested once, on held-out training images that are as noisy as the others.

        Args:
            candidate: one of `candidates`.
            images: how many there are to train on; some are held out.
            seed: of the run.
        """
        return candidate.model_copy(
            update={
                "validation": self.validation,
                "noisy_validation": True,
                "ema": self.decay(candidate, images),
                "flatness_rho": None,
                "evaluate_every": NEVER,
                "seed": seed,
            }
        )

    def final(self, chosen: Experiment, ema: float | None, seed: int) -> Experiment:
        """Return a run on all training images, tested on the test images.

        Args:
            chosen: the candidate that was chosen.
            ema: decay of the average of the weights; None for none.
            seed: of the run.
        """
        every = max(1, chosen.epochs // POINTS)
        return chosen.model_copy(
            update={"ema": ema, "evaluate_every": every, "seed": seed}
        )


def decay_over(steps: float) -> float:
    """Return the decay of an average that reaches back so many steps."""
    return min(round(math.exp(-1 / max(steps, 1)), 6), _SLOWEST)


def point_name(arm: Arm, one: Experiment) -> str:
    """Name a candidate's folder: ``lr-0.1-epochs-30``, with a radius if it has one."""
    radius = "" if arm == BASE else f"-rho-{one.rho:g}"
    return f"lr-{one.lr:g}{radius}-epochs-{one.epochs}"


def _whole(epochs: int, length: float) -> int:
    """Return how many epochs a schedule has."""
    return max(1, round(epochs * length))


def _twice(values: Sequence[object]) -> bool:
    return len(set(values)) < len(values)

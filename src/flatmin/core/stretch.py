"""A move of the base optimizer that goes further where the loss is flat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin.core import _checks as checks
from flatmin.core._joints import Radius, of_group
from flatmin.core._method import Method, Traits
from flatmin.core._program import Gradients, Program, Step
from flatmin.core._ranking import highest
from flatmin.core._shards import local
from flatmin.core._two_point import TwoPoint
from flatmin.core.gates import never


@dataclass(frozen=True, slots=True)
class Stretched(Method):
    """IRE: ``w <- w_old + (1 + kappa P)(w - w_old)``, after the base's step.

    P is 0 at the largest entries of the vector that is descended, all weights ranked
    together, and 1 elsewhere, also for a weight that had no gradient at the ranking.
    P is computed anew every ``every`` steps.

    Attributes:
        sharp: share of the weights that move as the base moves them.
        every: how many steps P lasts.
        start: the first step that is stretched.
        inner: the method whose vector is descended; by default the gradient at ``w``.
        kappa: per parameter group; by default its rho.

    Raises:
        ValueError: in the first step, if the inner method changes the base's step too.
    """

    sharp: float
    every: int
    start: int = 0
    inner: Method = TwoPoint(gate=never)  # noqa: RUF009 (frozen)
    kappa: Radius = of_group

    def __post_init__(self) -> None:
        checks.inside("sharp", self.sharp, "(0, 1)", "the authors' is 0.1")
        checks.integer("every", self.every, 1, "the authors' is 10")
        checks.integer("start", self.start, 0, "0 is the first step")

    @property
    def traits(self) -> Traits:
        """P lasts for several steps, and needs the gradient of a whole batch."""
        return self.inner.traits | Traits(remembers=("flat",), adds_up=False)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        g = yield from self.inner(step)
        if step.memory.pulled:
            raise ValueError(
                f"{type(self.inner).__name__} changes the base's step itself, which "
                "Stretched would undo. Give another method as inner."
            )
        if step.index < self.start or all(x is None for x in g):
            return g
        flat = step.memory.recall("flat")
        if flat is None or step.index % self.every == 0:
            # What replicas return may be their own; they have to rank alike.
            flat = _flat(step, step.mean(g), self.sharp)
        flat = [_known(p, x) for p, x in zip(flat, g, strict=True)]
        step.memory.keep("flat", flat)
        kappa = step.per_parameter(self.kappa(step))
        anchor: Gradients = [w.detach().clone() for w in local(step.w)]
        step.memory.pull(anchor, [_by(k, p) for k, p in zip(kappa, flat, strict=True)])
        return g


def _flat(step: Step, g: Gradients, sharp: float) -> Gradients:
    """1 where the gradient is not among the largest, else 0."""
    sizes: Gradients = [x if x is None else x.abs() for x in g]
    largest = highest(step, sizes, sharp)
    return [x if x is None else 1 - x for x in largest]


def _known(flat: Tensor | None, g: Tensor | None) -> Tensor | None:
    """1 for a weight that had no gradient when all were ranked, and has one now."""
    return flat if flat is not None or g is None else torch.ones_like(g.abs())


def _by(kappa: float, flat: Tensor | None) -> Tensor | None:
    """By how much each entry of a move is multiplied."""
    return None if flat is None else 1 + kappa * flat

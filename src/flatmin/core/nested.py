"""A program whose climb goes on through several steps of the base optimizer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from flatmin.core import _checks as checks
from flatmin.core import vectors as vec
from flatmin.core._joints import of_group
from flatmin.core._program import Ask, Gradients, Program, Step
from flatmin.core._shards import local
from flatmin.core._two_point import TwoPoint

Climb = TwoPoint()


@dataclass(frozen=True, slots=True)
class Lookbehind:
    """Lookbehind-SAM: k steps, each from the last with the gradient from higher up.

    The climb begins at ``w`` in the first of k steps and goes on by rho in each, along
    the gradient that the step before descended; after the k-th the weights go back to
    ``slow + alpha (w - slow)``, slow being those before the first.

    Attributes:
        k: steps with one batch.
        alpha: how much of the way of k steps is kept.
    """

    k: int
    alpha: float

    def __post_init__(self) -> None:
        checks.at_least("k", self.k, 1)
        checks.share("alpha", self.alpha)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho, at = of_group(step), step.index % self.k
        if not any(rho):
            return (yield Ask())
        z, g, slow = map(step.memory.recall, ("climbed", "uphill", "slow"))
        if at == 0 or z is None or g is None or slow is None:
            g = yield Ask()
            z = slow = _copies(step.w)
            step.memory.keep("slow", slow)
        ascent = Climb.climb(step, g, rho)
        z = vec.mix(1.0, z, 1.0, ascent.eps if ascent else [None] * len(z))
        g_eps = yield Ask(ascent and ascent._replace(eps=_from(step.w, z)))
        step.memory.keep("climbed", z)
        step.memory.keep("uphill", [x if x is None else x.clone() for x in g_eps])
        if at == self.k - 1:
            step.memory.pull(slow, self.alpha)
        return g_eps


def _copies(w: list[Tensor]) -> Gradients:
    return [p.detach().clone() for p in local(w)]


def _from(w: list[Tensor], z: Gradients) -> Gradients:
    """``z - w``."""
    return [
        None if there is None else there - here.detach()
        for here, there in zip(local(w), z, strict=True)
    ]

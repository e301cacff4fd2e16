"""A program whose climb goes on through several steps of the base optimizer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from flatmin.core import _checks as checks
from flatmin.core import vectors as vec
from flatmin.core._joints import of_group
from flatmin.core._method import Method, Traits
from flatmin.core._program import Ascent, Ask, Gradients, Program, Step
from flatmin.core._shards import local
from flatmin.core._two_point import Climb

#: What it remembers: the weights before the k steps, the end of the climb, and the
#: gradient of the step before.
_KEPT = ("slow", "climbed", "uphill")


@dataclass(frozen=True, slots=True)
class Lookbehind(Method):
    """Lookbehind-SAM: k steps, each with a gradient from higher up than the last.

    The climb begins at ``w`` in the first of k steps. Each step climbs by rho further,
    along the gradient that the step before descended. After the k-th step the weights
    go back to ``slow + alpha (w - slow)``, slow being the weights before the first.

    Attributes:
        k: how many steps use one batch.
        alpha: how much of the k steps is kept.
    """

    k: int
    alpha: float

    def __post_init__(self) -> None:
        checks.integer("k", self.k, 1, "the authors' command has 2")
        checks.inside("alpha", self.alpha, "(0, 1]", "the paper tries 0.2, 0.5, 0.8")

    @property
    def traits(self) -> Traits:
        """All but the first of k steps climb on from where the last climb ended."""
        return Traits(remembers=_KEPT, notes=("block",), skips_w=True)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho, (block, at) = of_group(step), divmod(step.index, self.k)
        here = _copies(step.w)
        # Steps of the base alone may have come between.
        goes_on = at > 0 and step.memory.number("block") == block
        slow, z, uphill = (
            step.memory.recall(name) if goes_on else None for name in _KEPT
        )
        slow, z = _filled(slow, here), _filled(z, here)
        g = uphill or (yield Ask())
        ascent, above = _higher(Climb.climb(step, g, rho), here, z)
        request = [Ask(ascent)]
        del ascent
        # Popped, so that this frame does not hold eps in memory during the pass.
        g_eps = yield request.pop()
        uphill = [x if x is None else x.clone() for x in g_eps]
        step.memory.note("block", block)
        for name, value in zip(_KEPT, (slow, above, uphill), strict=True):
            if not goes_on:
                step.memory.drop(name)
            step.memory.keep(name, value)
        if at == self.k - 1 and self.alpha < 1:
            step.memory.pull(slow, [self.alpha] * len(slow))
        return g_eps


def _higher(
    ascent: Ascent | None, here: Gradients, z: Gradients
) -> tuple[Ascent | None, Gradients]:
    """Return the ascent from ``here`` to the end of a climb from z, and that end."""
    if ascent is None:
        return None, z
    above = vec.mix(1.0, z, 1.0, ascent.eps)
    if z is here:
        return ascent, above
    return ascent._replace(eps=tuple(vec.mix(1.0, above, -1.0, here))), above


def _filled(recalled: Gradients | None, here: Gradients) -> Gradients:
    """Return what was recalled; a parameter that has no entry begins where it is."""
    if recalled is None:
        return here
    return [h if x is None else x for x, h in zip(recalled, here, strict=True)]


def _copies(w: list[Tensor]) -> Gradients:
    return [p.detach().clone() for p in local(w)]

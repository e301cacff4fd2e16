"""The program of almost every method: one gradient to climb, one to descend."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from flatmin.core._batch import Batch, all_examples
from flatmin.core._joints import (
    Combine,
    Filter,
    Gate,
    Perturbed,
    Radius,
    Scale,
    Source,
    always,
    everything,
    fresh,
    of_group,
    unscaled,
)
from flatmin.core._method import Method, Traits, traits_of
from flatmin.core._metric import LpBall, Metric
from flatmin.core._multiple import scaled, spread
from flatmin.core._program import Ascent, Ask, Gradients, Program, Step
from flatmin.core._tensors import products


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoPoint(Method):
    """``g`` at ``w``; ``eps`` from ``g``; ``g_eps`` at ``w + eps``; descend it.

    With every joint at its default this is SAM (algorithm 1 of the paper). If the
    gate is closed or all radii are zero the step is the base optimizer's, at its cost.

    Attributes:
        source: along what we climb.
        batch: on which examples.
        scale: the unit of each weight, T: ``eps = T ball(T g)``.
        metric: what the unit ball is.
        filter: which parameters move; the norm is taken over these.
        radius: how far.
        gate: when.
        combine: what we descend.

    Example:
        >>> from flatmin.core import Step, TwoPoint
        >>> def every_second(step: Step) -> bool:
        ...     return step.index % 2 == 0
        >>> TwoPoint(gate=every_second).metric
        LpBall(p=2.0)
    """

    source: Source = fresh
    batch: Batch = all_examples
    scale: Scale = unscaled
    metric: Metric = field(default_factory=LpBall)
    filter: Filter = everything
    radius: Radius = of_group
    gate: Gate = always
    combine: Combine = field(default_factory=Perturbed)

    @property
    def traits(self) -> Traits:
        """Those of the joints; ``needs_take`` if the ascent sees part of the batch."""
        joints = traits_of(self.source, self.scale, self.metric, self.combine)
        if self.batch is all_examples:
            return joints
        return joints | Traits(needs_take=True)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = self.radius(step)
        if not any(rho) or not self.gate(step):
            return (yield Ask())
        g = yield from self.source(step, self.batch)
        above = [Ask(self.climb(step, g, rho), alone=self.combine.needs_g)]
        if not self.combine.needs_g:
            g = []
        # Popped, so that this frame does not hold eps in memory during the pass.
        g_eps = yield above.pop()
        return self.combine(step, g, g_eps)

    def climb(self, step: Step, g: Gradients, rho: list[float]) -> Ascent | None:
        """``eps`` for the parameters that move; None if there are none."""
        moving: list[tuple[int, Tensor]] = [
            (i, g_i)
            for i, g_i in enumerate(self.filter(step, g))
            if g_i is not None and g_i.numel() > 0
        ]
        at = [i for i, _ in moving]
        group = [step.group_of[i] for i in at]
        radii = [rho[k] for k in group]
        if not any(radii):
            return None
        x = [g_i for _, g_i in moving]
        scale = self.scale(step, at, x)
        if scale is not None:
            x = products(x, scale)
        ascent = self.metric([step.w[i] for i in at], x, radii, group)
        moves = ascent.eps if scale is None else scaled(ascent.eps, scale)
        return ascent._replace(eps=spread(moves, at, len(step.w)))


#: SAM itself, for programs that climb as it does.
Climb = TwoPoint()

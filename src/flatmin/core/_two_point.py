"""The program of almost every method: one gradient to climb, one to descend."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

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
from flatmin.core._metric import LpBall, Metric
from flatmin.core._program import Ascent, Ask, Batch, Gradients, Program, Step, whole
from flatmin.core._tensors import products


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoPoint:
    """``g`` at ``w``; ``eps`` from ``g``; ``g_eps`` at ``w + eps``; descend it.

    With every joint at its plain value this is SAM (algorithm 1 of the paper). If the
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
    batch: Batch = whole
    scale: Scale = unscaled
    metric: Metric = field(default_factory=LpBall)
    filter: Filter = everything
    radius: Radius = of_group
    gate: Gate = always
    combine: Combine = field(default_factory=Perturbed)

    @property
    def needs_unscaled(self) -> bool:
        """Whether the size of a gradient counts, and not its direction alone."""
        parts = (self.source, self.scale, self.metric, self.combine)
        return any(getattr(part, "needs_unscaled", False) for part in parts)

    @property
    def remembers(self) -> tuple[str, ...]:
        """The names under which the joints keep what they remember."""
        parts = (self.source, self.combine)
        return tuple(name for part in parts for name in getattr(part, "remembers", ()))

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = self.radius(step)
        if not any(rho) or not self.gate(step):
            return (yield Ask())
        g = yield from self.source(step, self.batch)
        ascent = self.climb(step, g, rho)
        if not self.combine.needs_g:
            g = []
        g_eps = yield Ask(ascent, alone=self.combine.needs_g)
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
        if scale is not None:
            ascent.eps[:] = products([e for e in ascent.eps if e is not None], scale)
        eps: Gradients = [None] * len(step.w)
        for i, e in zip(at, ascent.eps, strict=True):
            eps[i] = e
        return ascent._replace(eps=eps)


#: SAM's own, for programs that climb as it does.
Climb = TwoPoint()

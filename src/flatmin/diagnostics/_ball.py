"""The ball around ``w`` that a measure searches, as a `TwoPoint` describes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flatmin.core import Gradients, LpBall, PerGroup, PerLayer, Step, TwoPoint
from flatmin.core import _tensors as ts
from flatmin.diagnostics._objective import Objective

_PLAIN = TwoPoint()


def ball_of(p: float, within: object) -> TwoPoint:
    """Return the description of the ball: ``within``, or the l_p ball of all weights.

    Raises:
        TypeError: ``within`` is something else, or ``p`` no number.
        ValueError: both are given, or ``p`` is below 1.
    """
    if within is None:
        return TwoPoint(metric=LpBall(p))
    if not isinstance(within, TwoPoint):
        raise TypeError(
            "within must be a flatmin.core.TwoPoint, whose scale, metric and filter "
            f"say what the ball is, got {type(within).__name__}."
        )
    if p != 2.0:
        raise ValueError("give either p or within, not both: within has a metric.")
    return within


def described(rho: float, within: TwoPoint) -> dict[str, Any]:
    """The settings of a record: rho, p, and the joints that are not the default."""
    ball = within.metric
    flat = isinstance(ball, LpBall)
    settings: dict[str, Any] = {"rho": float(rho)}
    settings |= {"p": float(ball.p)} if flat else {"ball": _name(ball)}
    for joint in ("scale", "filter"):
        if getattr(within, joint) is not getattr(_PLAIN, joint):
            settings[joint] = _name(getattr(within, joint))
    return settings


def step_of(objective: Objective, rho: float) -> Step:
    """The objective as core sees it: one group of parameters, before any step."""
    groups: list[dict[str, Any]] = [{"params": objective.w, "sam_rho": rho}]
    group_of = [0] * len(objective.w)
    return Step(0, objective.model, [*objective.w], groups, group_of)


def climb(within: TwoPoint, step: Step, g: Sequence[Tensor], rho: float) -> Gradients:
    """The highest point of the ball of radius ``rho`` for a slope ``g``.

    Raises:
        ValueError: the slope is not finite, or the filter leaves nothing to move.
    """
    if rho == 0:
        return [None] * len(g)
    ascent = within.climb(step, [*g], [rho])
    if ascent is None:
        raise ValueError(
            f"the filter {_name(within.filter)} leaves no parameter to move, so there "
            "is nothing to measure."
        )
    if not ascent.norm.isfinite().all():
        raise ValueError(
            "the gradient is infinite or NaN, so there is no direction to climb. The "
            "weights are where the loss is finite and its slope is not."
        )
    return [*ascent.eps]


@dataclass(frozen=True, slots=True)
class Fixed:
    """The ball as it is at ``w``, kept fixed for the gradients of other points.

    Attributes:
        within: what the ball was made from.
        step: the objective as core sees it.
        moving: for each parameter, which entries move; None if none does.
        unit: the scale T of each parameter that moves; None if it is 1 for all.
    """

    within: TwoPoint
    step: Step
    moving: Gradients
    unit: Gradients | None

    @classmethod
    def at(
        cls, objective: Objective, within: TwoPoint, g: Sequence[Tensor], rho: float
    ) -> Fixed:
        """The ball at the weights, whose gradient is ``g``."""
        step = step_of(objective, rho)
        seen = within.filter(step, [*g])
        moving: Gradients = [
            None if f is None else ~((f == 0) & (g_i != 0))
            for f, g_i in zip(seen, g, strict=True)
        ]
        pairs = [(i, f) for i, f in enumerate(seen) if f is not None]
        at = [i for i, _ in pairs]
        scale = within.scale(step, at, [f for _, f in pairs])
        if scale is None:
            return cls(within, step, moving, None)
        unit: Gradients = [None] * len(g)
        for i, t in zip(at, scale, strict=True):
            unit[i] = t
        return cls(within, step, moving, unit)

    def climb(self, g: Sequence[Tensor], rho: float) -> Gradients:
        """`climb`, with the filter and the scale that hold at ``w``."""
        fixed = replace(self.within, filter=self._filter, scale=self._scale)
        return climb(fixed, self.step, g, rho)

    def project(self, eps: Gradients, rho: float) -> Gradients:
        """``eps`` if it is in the ball, else a point of its surface.

        For p = 2 and infinity this is the nearest point, in units of the scale; for
        other p it is the point in the same direction.
        """
        return self._each(eps, rho, _onto)

    def random(self, rho: float, draw: torch.Generator) -> Gradients:
        """The point of the surface in a Gaussian direction, in units of the scale."""
        return self._each(self.gaussian(1.0, draw), rho, _out_to)

    def gaussian(self, sigma: float, draw: torch.Generator) -> Gradients:
        """Normal entries of standard deviation ``sigma`` times the scale."""
        eps: Gradients = []
        for i, (w, mask) in enumerate(zip(self.step.w, self.moving, strict=True)):
            # Drawn on the CPU, even where nothing moves: the draws are the same in
            # every process, whatever the filter and the device.
            z = torch.randn(w.shape, generator=draw, dtype=w.dtype, device="cpu")
            z = sigma * z.to(w.device)
            unit = None if self.unit is None else self.unit[i]
            eps.append(None if mask is None else _product(_product(z, mask), unit))
        return eps

    def dimension(self) -> int:
        """Count the entries that move; one whose unit of length is 0 does not."""
        units = [None] * len(self.moving) if self.unit is None else self.unit
        pairs = zip(self.moving, units, strict=True)
        return sum(
            int((mask if unit is None else mask & (unit > 0)).sum())
            for mask, unit in pairs
            if mask is not None
        )

    def _filter(self, step: Step, g: Gradients) -> Gradients:
        del step
        return [
            None if mask is None or g_i is None else g_i * mask
            for g_i, mask in zip(g, self.moving, strict=True)
        ]

    def _scale(self, step: Step, at: list[int], g: list[Tensor]) -> list[Tensor] | None:
        del step, g
        if self.unit is None:
            return None
        return [unit for i in at if (unit := self.unit[i]) is not None]

    def _each(
        self,
        eps: Gradients,
        rho: float,
        move: Callable[[list[Tensor], Tensor, float], list[Tensor]],
    ) -> Gradients:
        """Apply ``move`` in every ball, with its radius, in units of the scale."""
        moved: Gradients = [None] * len(eps)
        for p, radius, at in self._balls(eps, rho):
            v = move([self._divided(i, eps) for i in at], radius, p)
            for i, v_i in zip(at, v, strict=True):
                moved[i] = v_i if self.unit is None else _product(v_i, self.unit[i])
        return moved

    def _divided(self, i: int, eps: Gradients) -> Tensor:
        """``eps / T``, 0 where T is."""
        e = eps[i]
        assert e is not None
        unit = None if self.unit is None else self.unit[i]
        return e if unit is None else torch.where(unit > 0, e / unit, 0)

    def _balls(
        self, eps: Gradients, rho: float
    ) -> list[tuple[float, Tensor, list[int]]]:
        """Exponent, radius and positions of every ball."""
        at = [i for i, e in enumerate(eps) if e is not None]
        ball = self.within.metric
        if isinstance(ball, PerGroup):
            ball = ball.ball
        if isinstance(ball, LpBall):
            whole = torch.tensor(rho, dtype=torch.float64, device=self.step.w[0].device)
            return [(ball.p, whole, at)] if at else []
        if isinstance(ball, PerLayer) and isinstance(ball.ball, LpBall):
            sizes = [rho * ts.norm([self.step.w[i].detach()]) for i in at]
            return [(ball.ball.p, r, [i]) for r, i in zip(sizes, at, strict=True)]
        raise TypeError(
            "a maximum over a ball needs LpBall or PerLayer(LpBall) as metric, got "
            f"{_name(ball)}, which has no surface to stay inside."
        )


def _onto(v: list[Tensor], radius: Tensor, p: float) -> list[Tensor]:
    """``v`` if it is in the l_p ball around all its entries, else on its surface."""
    if math.isinf(p):
        return [_clamped(x, radius) for x in v]
    size = _size(v, p)
    return ts.times(v, torch.where(size > radius, radius / size, 1.0))


def _clamped(x: Tensor, radius: Tensor) -> Tensor:
    """Every entry shortened to ``radius``, if its modulus is more."""
    if x.is_complex():
        size = x.abs()
        return x * torch.where(size > radius, radius.to(size.dtype) / size, 1.0)
    return x.clamp(-radius.to(x.dtype), radius.to(x.dtype))


def _out_to(v: list[Tensor], radius: Tensor, p: float) -> list[Tensor]:
    """``v`` on the surface of the l_p ball, in the same direction; 0 if it is 0."""
    size = _size(v, p)
    return ts.times(v, torch.where(size > 0, radius / size, 0.0))


def _size(v: list[Tensor], p: float) -> Tensor:
    """``||v||_p``: float64, 0-dim."""
    if p == 2:
        return ts.norm(v)
    top = ts.largest(v)
    if math.isinf(p):
        return top
    unit = torch.where(top == 0, 1, top)
    return top * ts.power_total(v, unit, p) ** (1 / p)


def _product(x: Tensor, y: Tensor | None) -> Tensor:
    return x if y is None else x * y


def _name(joint: Any) -> str:
    """How a joint is called, without addresses."""
    name = getattr(getattr(joint, "func", joint), "__name__", None)
    return name.lstrip("_") if name else repr(joint)

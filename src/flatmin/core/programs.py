"""Programs that take more than two points, or decide between them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from flatmin.core import vectors as vec
from flatmin.core._checks import at_least, share
from flatmin.core._joints import of_group
from flatmin.core._program import Ascent, Ask, Gradients, Program, Step
from flatmin.core._shards import is_dtensor
from flatmin.core._two_point import Climb, TwoPoint


@dataclass(frozen=True, slots=True)
class MultiStep:
    """``k`` steps of length rho up the loss, each brought back into the ball.

    Attributes:
        k: how many; 1 is SAM.
    """

    k: int

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = of_group(step)
        ascent = None
        for _ in range(self.k if any(rho) else 0):
            eps = [*ascent.eps] if ascent else []
            g = yield Ask(ascent, climbs=True)
            ascent = Climb.climb(step, g, rho)
            if ascent and eps:
                ascent = ascent._replace(eps=_within(step, rho, eps, ascent.eps))
        return (yield Ask(ascent))


def _within(step: Step, rho: list[float], eps: Gradients, more: Gradients) -> Gradients:
    """The sum, brought back to length rho if it is longer."""
    total = vec.mix(1.0, eps, 1.0, more)
    length = vec.norm(step.w, total).clamp_min(torch.finfo(torch.float32).tiny)
    return vec.times((max(rho) / length).clamp_max(1), total)


@dataclass(frozen=True, slots=True)
class SecondOrder:
    """The exact gradient of ``L(w + eps(w))``, with what eps owes to w.

    ``g_eps + rho / ||g|| H (g_eps - <g_eps, u> u)`` with ``u = g / ||g||`` and the
    Hessian H at ``w``; the third pass computes the product by double backward.
    """

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        if any(is_dtensor(p) for p in step.w):
            raise ValueError(
                "second-order SAM needs whole parameters, got sharded ones (DTensor): "
                "their gradients cannot be differentiated. Use flatmin.SAM."
            )
        rho = of_group(step)
        if not any(rho):
            return (yield Ask())
        g = yield Ask(climbs=True)
        g_eps = yield Ask(Climb.climb(step, g, rho), alone=True)
        gg, ge = vec.dot(step.w, g, g), vec.dot(step.w, g, g_eps)
        turning = vec.mix(1.0, g_eps, -vec.ratio(ge, gg), g)
        pulled = yield Ask(along=turning, alone=True)
        length = vec.ratio(torch.full_like(gg, max(rho)), gg.sqrt())
        return vec.mix(1.0, g_eps, length, pulled)


@dataclass(frozen=True, slots=True)
class BothSides:
    """CR-SAM: ``g+ + gamma (g+ + g- - 2g) + beta (g+ - g-)``, at w, w + eps, w - eps.

    Attributes:
        gamma: the weight of the normalised trace of the Hessian.
        beta: the weight of the slope.
    """

    gamma: float
    beta: float

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = of_group(step)
        if not any(rho):
            return (yield Ask())
        g = yield Ask(climbs=True)
        ascent = Climb.climb(step, g, rho)
        back = _turned(ascent)
        up = yield Ask(ascent, alone=True)
        down = yield Ask(back, alone=True)
        ends = vec.mix(1 + self.gamma + self.beta, up, self.gamma - self.beta, down)
        return vec.mix(1.0, ends, -2 * self.gamma, g)


@dataclass(frozen=True, slots=True)
class FirstOrderFlat:
    """GAM: flat in the loss and in its slope, from four gradients.

    ``g0`` at w; ``g1`` at ``w + r g0``; ``g2`` at ``w + rho h`` with ``h = g1 - g0``;
    ``g3`` at ``w + rho h + r g2`` (g0, h, g2 normalised). With
    ``v = alpha g1 + (1 - alpha) g3`` and ``m = g0 + (1 - beta) g2`` the step descends
    ``v - gamma (m - proj m)``, the projection being that onto v.

    Attributes:
        slope_rho: r, in units of rho.
        alpha: the weight of g1.
        beta: one minus the weight of g2.
        gamma: the weight of the orthogonal part.
    """

    slope_rho: float
    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        at_least("slope_rho", self.slope_rho, 0)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = of_group(step)
        if not any(rho):
            return (yield Ask())
        short = [self.slope_rho * r for r in rho]
        g0 = yield Ask(climbs=True)
        g1 = yield Ask(Climb.climb(step, g0, short), alone=True)
        far = Climb.climb(step, vec.mix(1.0, g1, -1.0, g0), rho)
        h: Gradients = [*far.eps] if far else [None] * len(step.w)
        g2 = yield Ask(far, alone=True)
        near = Climb.climb(step, g2, short)
        g3 = yield Ask(_added(near, h), alone=True)
        v = vec.mix(self.alpha, g1, 1 - self.alpha, g3)
        m = vec.mix(1.0, g0, 1 - self.beta, g2)
        along = vec.ratio(vec.dot(step.w, m, v), vec.dot(step.w, v, v))
        return vec.mix(1 + self.gamma * along, v, -self.gamma, m)


@dataclass(frozen=True, slots=True)
class Look:
    """LookSAM: SAM in every k-th step, and what it changed in the steps between.

    A step of SAM keeps the direction ``u`` of ``g_eps - proj g_eps``, the projection
    being that onto g; the others descend ``g + alpha ||g|| u``.

    Attributes:
        k: a step of SAM every so many.
        alpha: the length of the correction, relative to g.
    """

    k: int
    alpha: float
    remembers: ClassVar = ("look",)

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho, u = of_group(step), step.memory.recall("look")
        if not any(rho):
            return (yield Ask())
        if step.index % self.k and u is not None:
            g = yield Ask()
            return vec.mix(1.0, g, self.alpha * vec.norm(step.w, g), u)
        found = yield Ask(climbs=True)
        g = step.mean(found)
        g_eps = yield Ask(Climb.climb(step, found, rho))
        gg, ge = vec.dot(step.w, g, g), vec.dot(step.w, g, g_eps)
        part = vec.mix(1.0, g_eps, -vec.ratio(ge, gg), g)
        length = vec.norm(step.w, part)
        unit = vec.times(vec.ratio(torch.ones_like(length), length), part)
        step.memory.keep("look", vec.finite(step.w, unit, u))
        return g_eps


@dataclass(frozen=True, slots=True)
class Steep:
    """AE-SAM: a step of SAM where the squared gradient norm is high for its time.

    That is ``||g||^2 >= mean + c std``, both being running averages, with c going from
    ``early`` to ``late`` over the training.

    Attributes:
        steps: of the whole training.
        decay: of the averages.
        early: c at the beginning.
        late: c at the end.
    """

    steps: int
    decay: float
    early: float
    late: float
    notes: ClassVar = ("steep_mean", "steep_var")

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        share("decay", self.decay)

    @property
    def needs_unscaled(self) -> bool:
        """Always."""
        return True

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = of_group(step)
        if not any(rho):
            return (yield Ask())
        g = yield Ask(climbs=True)
        square = float(step.agree(vec.norm(step.w, g).square()))
        if not self.is_steep(step, square):
            return g
        return (yield Ask(Climb.climb(step, g, rho)))

    def is_steep(self, step: Step, square: float) -> bool:
        """Whether this is much, and note it."""
        if not math.isfinite(square):
            return False
        past = min(step.index / self.steps, 1)
        c = past * self.late + (1 - past) * self.early
        mean = _running(step, "steep_mean", square, self.decay)
        variance = _running(step, "steep_var", (square - mean) ** 2, self.decay)
        return square >= mean + c * math.sqrt(variance)


def _running(step: Step, name: str, value: float, decay: float) -> float:
    """The running average under this name; the first value is the first average."""
    old = step.memory.number(name)
    average = value if old is None else decay * old + (1 - decay) * value
    step.memory.note(name, average)
    return average


@dataclass(frozen=True, slots=True)
class Alternating:
    """Each batch is used for two steps: a plain one, and one at ``w + eps``.

    The second climbs along the gradient that the first has just descended.
    """

    method: TwoPoint = field(default_factory=TwoPoint)
    remembers: ClassVar = ("first",)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho, g = of_group(step), step.memory.recall("first")
        if step.index % 2 == 0 or g is None or not any(rho):
            g = yield Ask()
            step.memory.keep("first", [x if x is None else x.clone() for x in g])
            return g
        return (yield Ask(self.method.climb(step, g, rho)))


def _turned(ascent: Ascent | None) -> Ascent | None:
    """To the other side of ``w``."""
    return ascent and ascent._replace(eps=vec.times(-1.0, ascent.eps))


def _added(ascent: Ascent | None, h: Gradients) -> Ascent | None:
    """From another point than ``w``."""
    return ascent and ascent._replace(eps=vec.mix(1.0, ascent.eps, 1.0, h))

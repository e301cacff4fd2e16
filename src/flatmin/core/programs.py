"""Programs that take more than two points, or decide between them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from flatmin.core import vectors as vec
from flatmin.core._checks import inside, integer
from flatmin.core._joints import of_group
from flatmin.core._method import Method, Traits
from flatmin.core._program import Ascent, Ask, Point, Program, Step
from flatmin.core._shards import any_sharded
from flatmin.core._two_point import Climb, TwoPoint


@dataclass(frozen=True, slots=True)
class MultiStep(Method):
    """``k`` steps of length rho up the loss, each brought back into the ball.

    With several radii a step is ``R g / ||g||``, R the radius of every parameter, and
    the ball is ``||R^-1 eps|| <= 1``. Points are projected on it along the ray from
    ``w``.

    Attributes:
        k: how many steps; 1 is SAM.
    """

    k: int

    def __post_init__(self) -> None:
        integer("k", self.k, 1, "SAM's is 1")

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = of_group(step)
        g = yield Ask(climbs=True)
        ascent = Climb.climb(step, g, rho)
        for _ in range(self.k - 1):
            g = yield Ask(ascent and Point(ascent.eps), climbs=True)
            ascent = _further(step, rho, ascent, Climb.climb(step, g, rho))
        return (yield Ask(ascent))


def _further(
    step: Step, rho: list[float], ascent: Ascent | None, more: Ascent | None
) -> Ascent | None:
    """Add the two climbs, and bring the sum back into the ball."""
    if ascent is None or more is None:
        return ascent or more
    total = vec.mix(1.0, ascent.eps, 1.0, more.eps)
    shares = step.per_parameter([1 / r if r else 0.0 for r in rho])
    length = vec.norm(step.w, vec.times_each(shares, total))
    inside = vec.times(1 / length.clamp_min(1), total)
    return Ascent(tuple(inside), more.norm, ascent.ok | more.ok)


@dataclass(frozen=True, slots=True)
class SecondOrder(Method):
    """The exact gradient of ``L(w + R u)``: ``u = g / ||g||`` is differentiated too.

    ``g_eps + H (R g_eps - <u, R g_eps> u) / ||g||`` with the Hessian H at ``w`` and R
    the radius of every parameter; the third pass computes the product by double
    backward.
    """

    @property
    def traits(self) -> Traits:
        """One pass computes a product with the Hessian."""
        return Traits(second_order=True)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        if any_sharded(step.w):
            raise ValueError(
                "second-order SAM needs whole parameters, got sharded ones (DTensor): "
                "their gradients cannot be differentiated. Use flatmin.SAM."
            )
        rho = of_group(step)
        g = yield Ask(climbs=True)
        g_eps = yield Ask(Climb.climb(step, g, rho), alone=True)
        scaled = vec.times_each(step.per_parameter(rho), g_eps)
        gg, gs = vec.dot(step.w, g, g), vec.dot(step.w, g, scaled)
        turning = vec.mix(1.0, scaled, -vec.ratio(gs, gg), g)
        pulled = yield Ask(along=turning, alone=True)
        shrink = vec.ratio(torch.ones_like(gg), gg.sqrt())
        return vec.mix(1.0, g_eps, shrink, pulled)


@dataclass(frozen=True, slots=True)
class BothSides(Method):
    """CR-SAM: ``g+ + gamma (g+ + g- - 2g) + beta (g+ - g-)``, at w, w + eps, w - eps.

    Attributes:
        gamma: the weight of the normalised trace of the Hessian.
        beta: the weight of the slope.
    """

    gamma: float
    beta: float

    def __post_init__(self) -> None:
        inside("gamma", self.gamma, "[0, inf)", "the authors' class has 0.1")
        inside("beta", self.beta, "[0, inf)", "the authors' class has 0.1")

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        g = yield Ask(climbs=True)
        ascent = Climb.climb(step, g, of_group(step))
        sides = [Ask(_turned(ascent), alone=True), Ask(ascent, alone=True)]
        del ascent
        # Popped, so that this frame does not hold an eps in memory during its pass.
        up = yield sides.pop()
        down = yield sides.pop()
        ends = vec.mix(1 + self.gamma + self.beta, up, self.gamma - self.beta, down)
        return vec.mix(1.0, ends, -2 * self.gamma, g)


@dataclass(frozen=True, slots=True)
class FirstOrderFlat(Method):
    """GAM: flat in the loss and in its slope, from four gradients.

    ``g0`` at w; ``g1`` at ``w + r g0``; ``g2`` at ``w + rho h`` with ``h = g1 - g0``;
    ``g3`` at ``w + rho h + r g2`` (g0, h, g2 normalised). With
    ``v = alpha g1 + (1 - alpha) g3`` and ``m = g0 + (1 - beta) g2`` the step descends
    ``v - gamma (m - proj m)``, the projection being that onto v.

    Attributes:
        slope_rho: r, the same for all groups.
        alpha: the weight of g1.
        beta: one minus the weight of g2.
        gamma: the weight of the orthogonal part.
    """

    slope_rho: float
    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        inside("slope_rho", self.slope_rho, "(0, inf)", "the authors' is 0.02")
        inside("alpha", self.alpha, "[0, 1]", "the authors' is 0.6")
        inside("beta", self.beta, "[0, 1]", "the authors' is 0.5")
        inside("gamma", self.gamma, "[0, inf)", "the authors' is 0.03")

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = of_group(step)
        short = [self.slope_rho if r else 0.0 for r in rho]
        g0 = yield Ask(climbs=True)
        g1 = yield Ask(_beside(None, Climb.climb(step, g0, short)), alone=True)
        far = Climb.climb(step, vec.mix(1.0, g1, -1.0, g0), rho)
        g2 = yield Ask(far, alone=True)
        g3 = yield Ask(_beside(far, Climb.climb(step, g2, short)), alone=True)
        v = vec.mix(self.alpha, g1, 1 - self.alpha, g3)
        m = vec.mix(1.0, g0, 1 - self.beta, g2)
        along = vec.ratio(vec.dot(step.w, m, v), vec.dot(step.w, v, v))
        return vec.mix(1 + self.gamma * along, v, -self.gamma, m)


@dataclass(frozen=True, slots=True)
class Look(Method):
    """LookSAM: SAM in every k-th step, its correction in the steps between.

    A step of SAM keeps the direction ``u`` of ``g_eps - proj g_eps``, the projection
    being that onto g; the others descend ``g + alpha ||g|| u``.

    Attributes:
        k: every k-th step is one of SAM.
        alpha: the length of the correction, relative to g.
    """

    k: int
    alpha: float

    def __post_init__(self) -> None:
        integer("k", self.k, 1, "the paper's is 5")
        inside("alpha", self.alpha, "[0, inf)", "the paper's is 0.7")

    @property
    def traits(self) -> Traits:
        """The direction found in a step of SAM is kept for the steps after it."""
        return Traits(remembers=("look",))

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho, u = of_group(step), step.memory.recall("look")
        if step.index % self.k and u is not None:
            g = yield Ask()
            # A mean of unit vectors is shorter than they are.
            ratio = vec.ratio(vec.norm(step.w, g), vec.norm(step.w, u))
            return vec.as_gradients(step.w, vec.mix(1.0, g, self.alpha * ratio, u))
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
class Steep(Method):
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

    def __post_init__(self) -> None:
        integer("steps", self.steps, 1, "they are those of the whole training")
        inside("decay", self.decay, "[0, 1)", "0.9 is a mean of ten steps")
        inside("early", self.early, "(-inf, inf)", "the default is 1")
        inside("late", self.late, "(-inf, inf)", "the default is -1")

    @property
    def traits(self) -> Traits:
        """The size of the gradient is compared with that of earlier ones."""
        return Traits(notes=("steep_mean", "steep_var"), needs_unscaled=True)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        g = yield Ask(climbs=True)
        square = float(step.agree(vec.norm(step.w, g).square()))
        if not self.is_steep(step, square):
            return g
        return (yield Ask(Climb.climb(step, g, of_group(step))))

    def is_steep(self, step: Step, square: float) -> bool:
        """Return whether this squared norm is high, and update the averages."""
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
class Alternating(Method):
    """Each batch is used for two steps: a plain one, and one at ``w + eps``.

    The second climbs along the gradient that the first has just descended.
    """

    method: TwoPoint = field(default_factory=TwoPoint)

    @property
    def traits(self) -> Traits:
        """Those of the method; what a plain step descends is climbed in the next."""
        return self.method.traits | Traits(
            remembers=("first",), notes=("pair",), skips_w=True
        )

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        g, (pair, second) = step.memory.recall("first"), divmod(step.index, 2)
        # Steps of the base alone may have come between.
        if not second or g is None or step.memory.number("pair") != pair:
            g = yield Ask()
            step.memory.note("pair", pair)
            step.memory.drop("first")
            step.memory.keep("first", [x if x is None else x.clone() for x in g])
            return g
        return (yield Ask(self.method.climb(step, g, of_group(step))))


def _turned(ascent: Ascent | None) -> Point | None:
    """Return the opposite point, ``w - eps``."""
    return ascent and Point(tuple(vec.times(-1.0, ascent.eps)))


def _beside(start: Ascent | None, more: Ascent | None) -> Point | None:
    """Return the end of ``more``, climbed from that of ``start`` or from ``w``."""
    if start is None or more is None:
        return more and Point(more.eps)
    return Point(tuple(vec.mix(1.0, start.eps, 1.0, more.eps)))

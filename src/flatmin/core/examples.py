"""Programs whose passes see a part of the batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from flatmin.core import _checks as checks
from flatmin.core import filters
from flatmin.core import vectors as vec
from flatmin.core._joints import of_group
from flatmin.core._program import Ask, Program, Step, fraction, highest
from flatmin.core._two_point import Climb, TwoPoint


@dataclass(frozen=True, slots=True)
class Matched:
    """An ascent on a part of the batch, as far as the gradient of it is longer.

    The radius is rho times a running mean of ``||g|| / ||g_eps||``, which begins at
    ``1 / sqrt(share)``: g is the gradient of the part, g_eps that of the batch.

    Attributes:
        share: of the batch that is climbed on.
        decay: of the running mean.
    """

    share: float
    decay: float
    notes: ClassVar = ("matched",)

    def __post_init__(self) -> None:
        checks.part("share", self.share)
        checks.share("decay", self.decay)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho, old = of_group(step), step.memory.number("matched")
        if not any(rho):
            return (yield Ask())
        ratio = 1 / math.sqrt(self.share) if old is None else old
        g = yield Ask(batch=fraction(self.share), climbs=True)
        size = vec.norm(step.w, g)
        g_eps = yield Ask(Climb.climb(step, g, [ratio * r for r in rho]))
        found = float(step.agree(vec.ratio(size, vec.norm(step.w, g_eps))))
        if math.isfinite(found) and found > 0:
            ratio = self.decay * ratio + (1 - self.decay) * found
        step.memory.note("matched", ratio)
        return g_eps


@dataclass(frozen=True, slots=True)
class HighestLoss:
    """K-SAM: both gradients are those of the examples with the highest losses.

    Attributes:
        share: of the batch.
    """

    share: float

    def __post_init__(self) -> None:
        checks.part("share", self.share)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = of_group(step)
        if not any(rho):
            return (yield Ask())
        yield Ask(each=True, backward=False)
        chosen = highest(step.losses[-1], self.share)
        g = yield Ask(batch=chosen, climbs=True)
        return (yield Ask(Climb.climb(step, g, rho), batch=chosen))


@dataclass(frozen=True, slots=True)
class HighestRise:
    """ESAM: a random part of the tensors moves, the examples that rise most descend.

    Attributes:
        weights: the probability with which a tensor moves, beta; ``eps`` is as many
            times longer.
        examples: of the batch, gamma; with 1 no loss is looked at.
        seed: of the coins.
    """

    weights: float
    examples: float
    seed: int = 0

    def __post_init__(self) -> None:
        checks.part("weights", self.weights)
        checks.part("examples", self.examples)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = [r / self.weights for r in of_group(step)]
        if not any(rho):
            return (yield Ask())
        some = TwoPoint(filter=filters.by_chance(self.weights, self.seed))
        picks = self.examples < 1
        ascent = some.climb(step, (yield Ask(climbs=True, each=picks)), rho)
        if not picks:
            return (yield Ask(ascent))
        # The engine empties eps with every move, and this one is made twice.
        again = ascent and ascent._replace(eps=[*ascent.eps])
        yield Ask(ascent, each=True, backward=False)
        before, after = step.losses
        return (yield Ask(again, batch=highest(after - before, self.examples)))

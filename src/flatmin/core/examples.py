"""Programs whose passes see a part of the batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flatmin.core import _checks as checks
from flatmin.core import filters
from flatmin.core import vectors as vec
from flatmin.core._batch import fraction, highest
from flatmin.core._joints import of_group
from flatmin.core._method import Method, Traits
from flatmin.core._program import Ask, Program, Step
from flatmin.core._two_point import Climb, TwoPoint


@dataclass(frozen=True, slots=True)
class Matched(Method):
    """An ascent on a part of the batch, with a radius for its longer gradient.

    The radius is rho times a running mean of ``||g|| / ||g_eps||``, which begins at
    ``1 / sqrt(share)``: g is the gradient of the part, g_eps that of the batch.

    Attributes:
        share: of the batch that the ascent sees.
        decay: of the running mean.
    """

    share: float
    decay: float

    def __post_init__(self) -> None:
        checks.inside("share", self.share, "(0, 1]", "0.25 is the default")
        checks.inside("decay", self.decay, "[0, 1]", "0.9 is a mean of ten steps")

    @property
    def traits(self) -> Traits:
        """The running mean is a number; the ascent sees a part of the batch."""
        return Traits(notes=("matched",), needs_take=self.share < 1)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho, old = of_group(step), step.memory.number("matched")
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
class HighestLoss(Method):
    """K-SAM: both gradients are those of the examples with the highest losses.

    Attributes:
        share: of the batch.
    """

    share: float

    def __post_init__(self) -> None:
        checks.inside("share", self.share, "(0, 1]", "0.5 is half of the batch")

    @property
    def traits(self) -> Traits:
        """Examples are chosen by their losses."""
        return Traits(needs_losses=True, needs_take=self.share < 1)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        yield Ask(each=True, backward=False)
        chosen = highest(step.losses[-1], self.share)
        g = yield Ask(batch=chosen, climbs=True)
        return (yield Ask(Climb.climb(step, g, of_group(step)), batch=chosen))


@dataclass(frozen=True, slots=True)
class HighestRise(Method):
    """ESAM: a random part of the tensors moves, the examples that rise most descend.

    Attributes:
        beta: the probability with which a tensor moves; ``eps`` is ``1 / beta`` times
            longer.
        gamma: the share of the batch that descends; with 1 no losses are needed.
        seed: of the random choice of tensors.
    """

    beta: float
    gamma: float
    seed: int = 0

    def __post_init__(self) -> None:
        checks.inside("beta", self.beta, "(0, 1]", "the authors' is 0.6")
        checks.inside("gamma", self.gamma, "(0, 1]", "the authors' is 0.5")

    @property
    def traits(self) -> Traits:
        """Examples are chosen by their losses, unless all are used."""
        picks = self.gamma < 1
        return Traits(needs_losses=picks, needs_take=picks)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = [r / self.beta for r in of_group(step)]
        some = TwoPoint(filter=filters.by_chance(self.beta, self.seed))
        picks = self.gamma < 1
        above = [some.climb(step, (yield Ask(climbs=True, each=picks)), rho)]
        if not picks:
            return (yield Ask(above.pop()))
        yield Ask(above[0], each=True, backward=False)
        before, after = step.losses
        chosen = highest(after - before, self.gamma)
        return (yield Ask(above.pop(), batch=chosen))

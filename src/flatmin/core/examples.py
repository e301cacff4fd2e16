"""Programs that choose examples of the batch by their losses."""

from __future__ import annotations

from dataclasses import dataclass

from flatmin.core import _checks as checks
from flatmin.core import filters
from flatmin.core._joints import of_group
from flatmin.core._program import Ask, Program, Step, highest
from flatmin.core._two_point import TwoPoint

Climb = TwoPoint()


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

"""A method on one part of the loss, beside the gradient of the rest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from flatmin.core import vectors as vec
from flatmin.core._method import Method, Traits
from flatmin.core._program import Ask, Program, Step
from flatmin.core._two_point import TwoPoint


@dataclass(frozen=True, slots=True)
class OnPart(Method):
    """What a method descends on the flat part of the loss, plus the rest's gradient.

    With SAM: ``grad L_flat(w + eps) + grad L_rest(w)``, ``eps`` along
    ``grad L_flat(w)``. The loop calls ``probe.total(flat=..., rest=...)``.

    Attributes:
        method: what runs on the flat part.

    Example:
        >>> from flatmin.core import TwoPoint, gates, parts
        >>> parts.OnPart(TwoPoint(gate=gates.every(5))).traits.needs_parts
        True
    """

    method: Method = field(default_factory=TwoPoint)

    @property
    def traits(self) -> Traits:
        """The method's; every pass is for a part of the loss."""
        return self.method.traits | Traits(needs_parts=True)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        program = self.method(step)
        asks = [next(program)]
        while True:
            # The engine averages both gradients over replicas, or neither.
            rest = Ask(part="rest", alone=asks[0].climbs or asks[0].alone)
            try:
                # Popped, so that this frame does not hold eps during the pass.
                asks.append(program.send((yield replace(asks.pop(), part="flat"))))
            except StopIteration as done:
                flat = done.value
                break
        return vec.mix(1.0, flat, 1.0, (yield rest))

"""Methods, their joints, and the traits that these declare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce

from flatmin.core._program import Program, Step, plain


@dataclass(frozen=True, slots=True)
class Traits:
    """What SAM must know of a method before a step; the defaults are SAM's own.

    Attributes:
        remembers: the names under which it keeps gradients from step to step.
        notes: the names under which it keeps numbers.
        needs_unscaled: whether the size of a gradient counts, and not its direction
            alone. Under a GradScaler it then needs ``probes(scaler=scaler)``.
        adds_up: whether the results of micro-batches may be added up.
        needs_take: whether some pass sees a part of the batch, so that the loop has to
            call ``probe.take``.
        needs_losses: whether some pass wants the loss of each example, so that the loop
            has to call ``probe.backward(losses)``.
        second_order: whether some pass differentiates twice, so that the loop has to
            call ``probe.backward(loss)``.
        needs_parts: whether some pass is for a part of the loss, so that the loop has
            to call ``probe.total``.
        skips_w: whether some steps make no pass at ``w``. Buffers then come from the
            first pass elsewhere, and `flatmin.Statistics` has no loss at ``w``.
    """

    remembers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    needs_unscaled: bool = False
    adds_up: bool = True
    needs_take: bool = False
    needs_losses: bool = False
    second_order: bool = False
    needs_parts: bool = False
    skips_w: bool = False

    def __or__(self, other: Traits) -> Traits:
        """The traits of two parts that work together."""
        return Traits(
            remembers=self.remembers + other.remembers,
            notes=self.notes + other.notes,
            needs_unscaled=self.needs_unscaled or other.needs_unscaled,
            adds_up=self.adds_up and other.adds_up,
            needs_take=self.needs_take or other.needs_take,
            needs_losses=self.needs_losses or other.needs_losses,
            second_order=self.second_order or other.second_order,
            needs_parts=self.needs_parts or other.needs_parts,
            skips_w=self.skips_w or other.skips_w,
        )


#: For parts without traits of their own.
_NONE = Traits()


class Joint:
    """A part of a method that is a class, and so can have traits.

    A part without any may be a plain function.
    """

    __slots__ = ()

    @property
    def traits(self) -> Traits:
        """What SAM has to know of this part."""
        return _NONE


def traits_of(*parts: object) -> Traits:
    """The traits of all parts together; a plain function has none."""
    found = [part.traits for part in parts if isinstance(part, Joint)]
    return reduce(Traits.__or__, [one for one in found if one is not _NONE], _NONE)


class Method(Joint, ABC):
    """A program for every step.

    A class and not a function, because SAM reads its `traits` before any step, for
    example to know what a checkpoint must hold. It is stateless; what it carries from
    step to step goes into ``step.memory``.

    Example:
        >>> from flatmin.core import Ask, Method, Program, Step
        >>> class Plain(Method):
        ...     def __call__(self, step: Step) -> Program:
        ...         return (yield Ask())
        >>> Plain().traits.remembers
        ()
    """

    __slots__ = ()

    @abstractmethod
    def __call__(self, step: Step) -> Program:
        """The program of a step in which a radius is positive."""
        ...

    def program(self, step: Step) -> Program:
        """The program of a step; with all radii zero, the base optimizer's own."""
        moves = any(group["sam_rho"] for group in step.groups)
        return self(step) if moves else plain()

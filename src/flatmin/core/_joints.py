"""Most of the joints, each with its default; the defaults together are SAM.

source: along what do we climb? gate: when? radius: how far? filter: which parameters
move? combine: what do we descend? The default ascent batch is
`flatmin.core.all_examples`. The metric and the scope have files of their own; the
scope belongs to the engine, not to the method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from flatmin.core._batch import Batch
from flatmin.core._checks import radius
from flatmin.core._method import Joint
from flatmin.core._program import Ask, Gradients, Program, Step

#: source: a program of its own, because it may ask for gradients. A source with a
#: memory is a `Joint`, whose traits name what it keeps.
Source: TypeAlias = Callable[[Step, Batch], Program]

#: gate: whether this step climbs at all.
Gate: TypeAlias = Callable[[Step], bool]

#: radius: one rho per parameter group.
Radius: TypeAlias = Callable[[Step], list[float]]

#: filter: the gradient with None (or zeros) where nothing is to move.
Filter: TypeAlias = Callable[[Step, Gradients], Gradients]


def fresh(step: Step, batch: Batch) -> Program:
    """Ask for the gradient at ``w`` in this step."""
    del step
    return (yield Ask(batch=batch, climbs=True))


def always(step: Step) -> bool:
    """Every step climbs."""
    del step
    return True


def of_group(step: Step) -> list[float]:
    """Each parameter group's ``sam_rho``, which schedules are free to change."""
    return [radius(group["sam_rho"], "sam_rho") for group in step.groups]


def everything(step: Step, g: Gradients) -> Gradients:
    """Every parameter that has a gradient moves."""
    del step
    return g


#: scale: the unit of length of every weight that moves, or None if it is 1 for all.
#: Called with the positions and gradients of the parameters that move. If the size of
#: a gradient matters, the scale is a `Joint` whose traits say so.
Scale: TypeAlias = Callable[[Step, list[int], list[Tensor]], list[Tensor] | None]


def unscaled(step: Step, at: list[int], g: list[Tensor]) -> None:
    """One unit for all weights."""
    del step, at, g


class Combine(Joint, ABC):
    """The vector to descend, from the gradients at ``w`` and ``w + eps``."""

    __slots__ = ()

    @property
    def needs_g(self) -> bool:
        """False if ``g`` may be freed before the second pass."""
        return True

    @abstractmethod
    def __call__(self, step: Step, g: Gradients, g_eps: Gradients) -> Gradients:
        """The combination; ``g`` is empty unless `needs_g`."""
        ...


class Perturbed(Combine):
    """The gradient at ``w + eps`` (eq. 3 of the paper)."""

    __slots__ = ()

    @property
    def needs_g(self) -> bool:
        """False, because only ``g_eps`` is used."""
        return False

    def __call__(self, step: Step, g: Gradients, g_eps: Gradients) -> Gradients:
        """``g_eps``."""
        del step, g
        return g_eps

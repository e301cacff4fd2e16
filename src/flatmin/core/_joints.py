"""The other joints, each with its plain value; together these are SAM.

source: along what do we climb? gate: when? radius: how far? filter: which parameters
move? combine: what do we descend? The ascent batch is `flatmin.core.whole`; the metric
has a file of its own, and so has the scope, which is the engine's and not the method's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from torch import Tensor

from flatmin.core._checks import radius
from flatmin.core._program import Ask, Batch, Gradients, Program, Step

#: source: a program of its own, because it may ask for gradients.
Source: TypeAlias = Callable[[Step, Batch], Program]

#: gate: whether this step climbs at all.
Gate: TypeAlias = Callable[[Step], bool]

#: radius: one rho per parameter group.
Radius: TypeAlias = Callable[[Step], list[float]]

#: filter: the gradient with None (or zeros) where nothing shall move.
Filter: TypeAlias = Callable[[Step, Gradients], Gradients]


def fresh(step: Step, batch: Batch) -> Program:
    """The gradient at ``w``, now."""
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
#: Given the positions of what moves and its gradient.
Scale: TypeAlias = Callable[[Step, list[int], list[Tensor]], list[Tensor] | None]


def unscaled(step: Step, at: list[int], g: list[Tensor]) -> None:
    """One unit for all weights."""
    del step, at, g


class Combine(Protocol):
    """The vector to descend, from the gradients at ``w`` and ``w + eps``."""

    @property
    def needs_g(self) -> bool:
        """False if ``g`` may be freed before the second pass."""
        ...

    def __call__(self, step: Step, g: Gradients, g_eps: Gradients) -> Gradients:
        """The combination; ``g`` is empty unless `needs_g`."""
        ...


class Perturbed:
    """The gradient at ``w + eps`` (eq. 3 of the paper)."""

    needs_g = False

    def __call__(self, step: Step, g: Gradients, g_eps: Gradients) -> Gradients:
        """``g_eps``."""
        del step, g
        return g_eps

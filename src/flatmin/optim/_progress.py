"""How far a SAM is in its step."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True, eq=False, weakref_slot=True)
class Progress:
    """How far a SAM is in its step.

    An object of its own, because wrappers of optimizers (Lightning Fabric's) read
    attributes of the optimizer, but store written ones in themselves.

    Attributes:
        open: whether a `probes` loop is being run.
        ready: whether a loop is finished, and no step was made since.
        unscaled: whether the last loop was given the scaler.
        offered: whether a GradScaler was asked to step since the last loop.
        left: the parameters that the last loop gave a gradient, and these gradients.
        stepping: whether `SAM.step` is calling the base optimizer.
        counted: whether the base's own hooks have counted its step.
        follows: whether the base began its step with the gradients of the last loop.
        depth: how deep steps of the base are nested: the step of a derived optimizer
            calls the step it derives from, and torch calls the hooks of both.
    """

    open: bool = False
    ready: bool = False
    unscaled: bool = False
    offered: bool = False
    left: list[tuple[Tensor, Tensor]] = field(
        default_factory=list[tuple[Tensor, Tensor]]
    )
    stepping: bool = False
    counted: bool = False
    follows: bool = False
    depth: int = 0

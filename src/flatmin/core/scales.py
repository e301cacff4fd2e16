"""Scales: the unit of length of each weight, T; ``eps = T ball(T g)``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin.core._checks import at_least
from flatmin.core._program import Step
from flatmin.core._shards import local


@dataclass(frozen=True, slots=True)
class Adaptive:
    """``|w| + eta`` for parameters with "weight" in their name, 1 for all others.

    Attributes:
        eta: keeps weights of zero movable.
    """

    eta: float

    def __post_init__(self) -> None:
        at_least("eta", self.eta, 0)

    @torch.no_grad()
    def __call__(self, step: Step, at: list[int], g: list[Tensor]) -> list[Tensor]:
        """T of what moves."""
        names = {id(p): name for name, p in step.model.named_parameters()}
        moving = [step.w[i] for i in at]
        return [
            p.abs() + self.eta
            if "weight" in names.get(id(w), "")
            else torch.ones_like(x)
            for w, p, x in zip(moving, local(moving), g, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Fisher:
    """``(1 + eta g^2)^(-1/2)``, from the batch's diagonal Fisher information.

    Attributes:
        eta: the weight of the information.
    """

    eta: float

    def __post_init__(self) -> None:
        at_least("eta", self.eta, 0)

    @property
    def needs_unscaled(self) -> bool:
        """Always."""
        return True

    def __call__(self, step: Step, at: list[int], g: list[Tensor]) -> list[Tensor]:
        """T of what moves."""
        del step, at
        return [(1 + self.eta * x.abs().square()).rsqrt() for x in g]

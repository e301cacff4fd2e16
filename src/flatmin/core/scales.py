"""Scales: the unit of length of each weight, T; ``eps = T ball(T g)``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin.core._checks import inside
from flatmin.core._method import Joint, Traits
from flatmin.core._program import Step
from flatmin.core._shards import local


@dataclass(frozen=True, slots=True)
class Adaptive:
    """``|w| + eta`` for parameters with "weight" in their name, 1 for all others.

    This is the scale of ASAM as its authors train with it. Where there are biases, a
    ball of this unit changes when layers are rescaled; that of `Magnitude` does not.

    Attributes:
        eta: keeps weights of zero movable.
    """

    eta: float

    def __post_init__(self) -> None:
        inside("eta", self.eta, "[0, inf)", "ASAM's is 0.01")

    @torch.no_grad()
    def __call__(self, step: Step, at: list[int], g: list[Tensor]) -> list[Tensor]:
        """T for the parameters that move."""
        names = {id(p): name for name, p in step.model.named_parameters()}
        moving = [step.w[i] for i in at]
        return [
            p.abs() + self.eta
            if "weight" in names.get(id(w), "")
            else torch.ones_like(x)
            for w, p, x in zip(moving, local(moving), g, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Magnitude:
    """``|w| + eta`` for every parameter, biases and those of norm layers included.

    With eta = 0 a ball of this unit is the same set of functions when a layer before a
    ReLU is multiplied by a number and the next layer divided by it. The paper on ASAM
    (Kwon et al. 2021, arXiv:2102.11600) shows that for ``T = |w|``, and Andriushchenko
    et al. (2023, arXiv:2302.07011) measure with it.

    Attributes:
        eta: keeps weights of zero movable; with 0 they stay where they are.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        inside("eta", self.eta, "[0, inf)", "0 is usual")

    @torch.no_grad()
    def __call__(self, step: Step, at: list[int], g: list[Tensor]) -> list[Tensor]:
        """T for the parameters that move."""
        del g
        return [p.abs() + self.eta for p in local([step.w[i] for i in at])]


@dataclass(frozen=True, slots=True)
class Fisher(Joint):
    """``(1 + eta g^2)^(-1/2)``, from the batch's diagonal Fisher information.

    Attributes:
        eta: the weight of the information.
    """

    eta: float

    def __post_init__(self) -> None:
        inside("eta", self.eta, "[0, inf)", "0 is SAM")

    @property
    def traits(self) -> Traits:
        """The information is the squared size of the gradient."""
        return Traits(needs_unscaled=True)

    def __call__(self, step: Step, at: list[int], g: list[Tensor]) -> list[Tensor]:
        """T for the parameters that move."""
        del step, at
        return [(1 + self.eta * x.abs().square()).rsqrt() for x in g]

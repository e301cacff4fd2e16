"""Combinations of the gradients at ``w`` and ``w + eps``: what do we descend?

Under DistributedDataParallel each replica combines its own two gradients, and the
results are averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch import Tensor

from flatmin.core import vectors as vec
from flatmin.core._checks import inside
from flatmin.core._joints import Combine
from flatmin.core._method import Traits
from flatmin.core._program import Gradients, Step
from flatmin.core._shards import cut_within

#: From ``<g, g>``, ``<g, g_eps>``, ``<g_eps, g_eps>`` to the weights of g and g_eps.
Coefficients: TypeAlias = Callable[
    [Tensor, Tensor, Tensor], tuple[Tensor | float, Tensor | float]
]


@dataclass(frozen=True, slots=True)
class Mixed(Combine):
    """``c g + d g_eps``.

    Attributes:
        c: the weight of g.
        d: the weight of g_eps.
    """

    c: float
    d: float

    @property
    def needs_g(self) -> bool:
        """True unless the weight of g is zero."""
        return self.c != 0

    def __call__(self, step: Step, g: Gradients, g_eps: Gradients) -> Gradients:
        """The combination."""
        del step
        return vec.mix(self.c, g, self.d, g_eps) if g else vec.times(self.d, g_eps)


@dataclass(frozen=True, slots=True)
class Affine(Combine):
    """``c g + d g_eps`` with weights from the three inner products of the two.

    Attributes:
        coefficients: the rule, in 0-dim tensors, so that the host need not wait.
    """

    coefficients: Coefficients

    def __call__(self, step: Step, g: Gradients, g_eps: Gradients) -> Gradients:
        """The combination."""
        w = step.w
        products = vec.dot(w, g, g), vec.dot(w, g, g_eps), vec.dot(w, g_eps, g_eps)
        c, d = self.coefficients(*products)
        return vec.mix(c, g, d, g_eps)


def minus_orthogonal(alpha: float) -> Affine:
    """``g_eps - alpha (g - proj g)``, the projection being that onto g_eps."""
    inside("alpha", alpha, "[0, inf)", "the paper's for ResNet-50 is 0.01")
    return Affine(partial(_minus_orthogonal, alpha))


def renormed() -> Affine:
    """``g_eps`` with the length of ``g``."""
    return Affine(_renormed)


def _minus_orthogonal(
    alpha: float, gg: Tensor, ge: Tensor, ee: Tensor
) -> tuple[float, Tensor]:
    del gg
    return -alpha, 1 + alpha * vec.ratio(ge, ee)


def _renormed(gg: Tensor, ge: Tensor, ee: Tensor) -> tuple[float, Tensor]:
    del ge
    return 0.0, vec.ratio(gg.sqrt(), ee.sqrt())


@dataclass(frozen=True, slots=True)
class Decoupled(Combine):
    """``g``, and after the base's step ``w <- w - lr a (g_eps - g)``.

    Attributes:
        a: the weight of the sharpness.
    """

    a: float

    @property
    def traits(self) -> Traits:
        """Gradients must be unscaled, as the second move bypasses the base."""
        return Traits(needs_unscaled=True)

    def __call__(self, step: Step, g: Gradients, g_eps: Gradients) -> Gradients:
        """``g``."""
        rates = [self.a * float(step.groups[k]["lr"]) for k in step.group_of]
        sharpness = step.mean(vec.mix(1.0, g_eps, -1.0, g))
        pairs = zip(rates, sharpness, strict=True)
        step.memory.push([x if x is None else -rate * x for rate, x in pairs])
        # A scaler checks the returned vector, which must show an overflow of the push.
        return [
            x if x is None or s is None else x + 0 * s
            for x, s in zip(g, sharpness, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Remembered(Combine):
    """``g_eps``, which the next step can climb along."""

    @property
    def traits(self) -> Traits:
        """The step keeps the vector that it descends."""
        return Traits(remembers=("stale",))

    @property
    def needs_g(self) -> bool:
        """False, because only ``g_eps`` is used."""
        return False

    def __call__(self, step: Step, g: Gradients, g_eps: Gradients) -> Gradients:
        """``g_eps``."""
        del g
        step.memory.drop("stale")
        # Cloned, because the returned vector may be scaled and clipped in place.
        step.memory.keep("stale", [x if x is None else x.clone() for x in g_eps])
        return g_eps


@dataclass(frozen=True, slots=True)
class Centred(Combine):
    """``g_eps`` without the mean of each weight vector."""

    @property
    def needs_g(self) -> bool:
        """False, because only ``g_eps`` is used."""
        return False

    def __call__(self, step: Step, g: Gradients, g_eps: Gradients) -> Gradients:
        """The combination."""
        del g
        return centre(step.w, g_eps)


def centre(w: list[Tensor], g: Gradients) -> Gradients:
    """Subtract the mean over all axes but the first, where there are others.

    Raises:
        ValueError: a parameter is cut along one of these axes.
    """
    if any(cut_within(p) for p in w):
        raise ValueError(
            "centring needs whole weight vectors, got a parameter that is cut along "
            "another axis than the first (tensor parallelism by rows)."
        )
    return [x if x is None or x.dim() < 2 else _centred(x) for x in g]


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=tuple(range(1, x.dim())), keepdim=True)

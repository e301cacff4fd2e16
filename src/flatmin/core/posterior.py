"""A program that learns a Gaussian around the weights, and climbs in its metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from flatmin.core import _checks as checks
from flatmin.core import _tensors as ts
from flatmin.core import vectors as vec
from flatmin.core._joints import of_group
from flatmin.core._program import Ascent, Ask, Gradients, Program, Step, whole
from flatmin.core._shards import local
from flatmin.core.sources import at_random


@dataclass(frozen=True, slots=True)
class Variational:
    """bSAM: SAM for the mean of a Gaussian whose precision, ``N s``, it learns.

    ``g`` at ``w + z / sqrt(N s)`` with a normal z; ``g_eps`` at ``w + rho g / s``;
    ``m <- beta_1 m + (1 - beta_1) (g_eps + delta w)``; the step descends ``m / s``;
    ``s <- beta_2 s + (1 - beta_2) (sqrt(s) |g| + damping + delta)``.

    Attributes:
        n: N, how many examples the training set has.
        precision: of the prior; delta is this over N.
        betas: of m and s.
        damping: keeps s from zero.
        start: the first s.
    """

    n: int
    precision: float
    betas: tuple[float, float]
    damping: float
    start: float
    remembers: ClassVar = ("mean", "scale")

    def __post_init__(self) -> None:
        checks.at_least("n", self.n, 1)
        checks.at_least("precision", self.precision, 0)
        checks.at_least("damping", self.damping, 0)
        for beta in self.betas:
            checks.share("betas", beta)
        if not checks.number("start", self.start) > 0:
            raise ValueError(f"start must be above 0, got {self.start}.")

    @property
    def needs_unscaled(self) -> bool:
        """Always."""
        return True

    @property
    def adds_up(self) -> bool:
        """Never: what is descended holds the mean of all steps once."""
        return False

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = of_group(step)
        if not any(rho):
            return (yield Ask())
        s = _or(step.memory.recall("scale"), step.w, self.start)
        z = yield from at_random(step, whole)
        g = yield Ask(_drawn(step.w, z, s, self.n), climbs=True)
        g_eps = yield Ask(_uphill(step, rho, g, s))
        return self._learn(step, s, g, g_eps)

    def _learn(
        self, step: Step, s: list[Tensor], g: Gradients, g_eps: Gradients
    ) -> Gradients:
        """``m / s``, and remember both for the next step."""
        one, two = self.betas
        delta = self.precision / self.n
        w: Gradients = [p.detach() for p in local(step.w)]
        m = _or(step.memory.recall("mean"), step.w, 0.0)
        pull = vec.mix(1.0, g_eps, delta, _where(g_eps, w))
        m = vec.mix(one, _where(g_eps, m), 1 - one, pull)
        sizes = step.mean([None if x is None else x.abs() for x in g])
        floor = self.damping + delta
        pairs = zip(s, sizes, strict=True)
        steep = [None if x is None else t.sqrt() * x + floor for t, x in pairs]
        new = vec.mix(two, _where(steep, s), 1 - two, steep)
        step.memory.keep("mean", m)
        step.memory.keep("scale", vec.finite(step.w, new, [*s]))
        return [x if x is None else x / t for x, t in zip(m, s, strict=True)]


def _or(kept: Gradients | None, w: list[Tensor], value: float) -> list[Tensor]:
    """What was kept, and this value where nothing was."""
    here = [p.detach() for p in local(w)]
    old: Gradients = [None for _ in w] if kept is None else kept
    pairs = zip(here, old, strict=True)
    return [torch.full_like(p, value) if x is None else x for p, x in pairs]


def _where(there: Gradients, x: list[Tensor] | Gradients) -> Gradients:
    """``x`` where there is a gradient."""
    return [None if g is None else x_i for g, x_i in zip(there, x, strict=True)]


def _drawn(w: list[Tensor], z: Gradients, s: list[Tensor], n: int) -> Ascent:
    """``z / sqrt(n s)``."""
    eps: Gradients = [
        None if z_i is None else z_i * (n * t).rsqrt()
        for z_i, t in zip(z, s, strict=True)
    ]
    norm = vec.norm(w, eps)
    return Ascent(eps, norm, norm.isfinite())


def _uphill(step: Step, rho: list[float], g: Gradients, s: list[Tensor]) -> Ascent:
    """``rho g / s``, or nothing if it is not finite."""
    radii = [rho[k] for k in step.group_of]
    eps: Gradients = [
        None if x is None else r * x / t for r, x, t in zip(radii, g, s, strict=True)
    ]
    norm = vec.norm(step.w, g)
    ok = (norm > 0) & vec.norm(step.w, eps).isfinite()
    ts.zero_unless_([e for e in eps if e is not None], ok)
    return Ascent(eps, norm, ok)

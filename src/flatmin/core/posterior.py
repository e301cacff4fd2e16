"""A program that learns a Gaussian around the weights, and climbs in its metric."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin.core import _checks as checks
from flatmin.core import _tensors as ts
from flatmin.core import vectors as vec
from flatmin.core._joints import of_group
from flatmin.core._method import Method, Traits
from flatmin.core._program import Ascent, Ask, Gradients, Point, Program, Step
from flatmin.core._shards import local
from flatmin.core.sources import normal


@dataclass(frozen=True, slots=True)
class Variational(Method):
    """bSAM: SAM for the mean of a Gaussian whose precision, ``N s``, it learns.

    ``g`` at ``w + z / sqrt(N s)`` with a normal z; ``g_eps`` at ``w + rho g / s``;
    ``m <- beta_1 m + (1 - beta_1) (g_eps + delta w)``; the step descends ``m / s``;
    ``s <- beta_2 s + (1 - beta_2) (sqrt(s) |g| + damping + delta)``.

    Attributes:
        n: N, how many examples the training set has.
        precision: of the prior; delta is this over N.
        betas: of m and s.
        damping: keeps s above zero.
        start: the first s.
    """

    n: int
    precision: float
    betas: tuple[float, float]
    damping: float
    start: float

    def __post_init__(self) -> None:
        checks.integer("n", self.n, 1, "CIFAR has 50000")
        checks.inside("precision", self.precision, "[0, inf)", "the authors' is 40")
        checks.inside("damping", self.damping, "[0, inf)", "the authors' is 0.1")
        checks.inside("start", self.start, "(0, inf)", "the authors' is 1")
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"betas must be two numbers, got {self.betas!r}.")
        for i, beta in enumerate(self.betas):
            checks.inside(
                f"betas[{i}]", beta, "[0, 1)", "the authors' are (0.9, 0.999)"
            )

    @property
    def traits(self) -> Traits:
        """The update contains a running mean, so micro-batches cannot be added up."""
        return Traits(
            remembers=("mean", "scale"),
            needs_unscaled=True,
            adds_up=False,
            skips_w=True,
        )

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        s = _or(step.memory.recall("scale"), step.w, self.start)
        g = yield Ask(_drawn(normal(step), s, self.n), climbs=True)
        g_eps = yield Ask(_uphill(step, of_group(step), g, s))
        return self._learn(step, s, g, g_eps)

    def _learn(
        self, step: Step, s: list[Tensor], g: Gradients, g_eps: Gradients
    ) -> Gradients:
        """Return ``m / s``, and keep the new m and s for the next step."""
        one, two = self.betas
        delta = self.precision / self.n
        w = [p.detach() for p in local(step.w)]
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
        v = [x if x is None else x / t for x, t in zip(m, s, strict=True)]
        return vec.as_gradients(step.w, v)


def _or(kept: Gradients | None, w: list[Tensor], value: float) -> list[Tensor]:
    """Return what was kept, in float32 at least, and ``value`` where nothing was."""
    here = ts.wide([p.detach() for p in local(w)])
    old: Gradients = [None for _ in w] if kept is None else kept
    pairs = zip(here, old, strict=True)
    return [torch.full_like(p, value) if x is None else x for p, x in pairs]


def _where(there: Gradients, x: list[Tensor] | Gradients) -> Gradients:
    """``x`` where there is a gradient."""
    return [None if g is None else x_i for g, x_i in zip(there, x, strict=True)]


def _drawn(z: Gradients, s: list[Tensor], n: int) -> Point:
    """``z / sqrt(n s)``."""
    pairs = zip(z, s, strict=True)
    return Point(
        tuple(None if z_i is None else z_i * (n * t).rsqrt() for z_i, t in pairs)
    )


def _uphill(step: Step, rho: list[float], g: Gradients, s: list[Tensor]) -> Ascent:
    """``rho g / s``, or zero if it is not finite."""
    radii = step.per_parameter(rho)
    eps: Gradients = [
        None if x is None else r * x / t for r, x, t in zip(radii, g, s, strict=True)
    ]
    norm = vec.norm(step.w, g)
    ok = (norm > 0) & vec.norm(step.w, eps).isfinite()
    ts.zero_unless_([e for e in eps if e is not None], ok)
    return Ascent(tuple(eps), norm, ok)

"""Noise on the weights, scaled by the norm of each filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flatmin.core import _tensors as ts
from flatmin.core import vectors as vec
from flatmin.core._batch import fraction, remainder
from flatmin.core._checks import inside
from flatmin.core._joints import Radius, of_group
from flatmin.core._method import Method, Traits
from flatmin.core._program import Ascent, Ask, Program, Step
from flatmin.core._shards import Shards, is_dtensor, local, share_of
from flatmin.core.sources import normal


@dataclass(frozen=True, slots=True)
class SplitNoise(Method):
    """One half of the batch at ``w``, and the other at a random point beside it.

    Attributes:
        radius: the deviation of the noise, relative to the norm of each filter.
        mix: the weight of the gradient at ``w``; the other one has ``1 - mix``.
    """

    radius: Radius = of_group
    mix: float = 0.5

    def __post_init__(self) -> None:
        inside("mix", self.mix, "[0, 1]", "the paper's is 0.5")

    @property
    def traits(self) -> Traits:
        """Each pass takes one half of the batch."""
        return Traits(needs_take=True)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = step.per_parameter(self.radius(step))
        if not any(rho):
            return (yield Ask())
        g = yield Ask(batch=fraction(0.5), alone=True)
        there = _drawn(step, rho)
        g_eps = yield Ask(there, batch=remainder(0.5), alone=True)
        return vec.mix(self.mix, g, 1 - self.mix, g_eps)


@torch.no_grad()
def _drawn(step: Step, rho: list[float]) -> Ascent:
    """The noise of a step: alike in all processes, and when the run is resumed."""
    drawn = [t for t in normal(step) if t is not None]
    rows = zip(rho, drawn, step.w, strict=True)
    eps = [r * _filter_norms(w) * z for r, z, w in rows]
    norm = vec.norm(step.w, eps)
    ok = (norm > 0) & norm.isfinite()
    ts.zero_unless_(eps, ok)
    return Ascent(tuple(eps), norm, ok)


def _filter_norms(w: Any) -> Tensor:
    """``||w_i||`` of each row or filter; the norm of the whole if ``w`` is a vector."""
    if w.dim() < 2:
        (here,) = ts.wide(local([w.detach()]))
        return Shards.of([w]).norm([here]).to(here.dtype)
    (whole,) = ts.wide([w.detach()])
    axes = tuple(range(1, w.dim()))
    sizes: Any = whole.abs().square().sum(dim=axes, keepdim=True).sqrt()
    if not is_dtensor(w):
        return sizes
    return share_of(sizes.full_tensor().expand(w.shape).contiguous(), w)

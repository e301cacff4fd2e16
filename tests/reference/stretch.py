"""A base optimizer whose step is stretched where the gradient is small.

In float64, without a line of the package it is there to check.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.noise import Base, Loss, gradients


def flat_entries(vs: list[Tensor], sharp: float) -> list[Tensor]:
    """1 at all entries but those that are largest in size, all tensors together."""
    sizes = torch.cat([v.abs().flatten() for v in vs])
    kept = int(sharp * len(sizes))
    largest = sizes.sort(descending=True).values[:kept]
    return [torch.where(v.abs() >= largest[-1], 0.0, 1.0).to(v.dtype) for v in vs]


def ire(
    losses: list[Loss],
    w: list[Tensor],
    base: Base,
    kappa: list[float],
    *,
    sharp: float,
    every: int,
    start: int,
) -> list[Tensor]:
    """kappa is that of each parameter."""
    flat: list[Tensor] = []
    for t, loss in enumerate(losses):
        v = gradients(loss, w)
        old, w = w, base(w, v)
        if t < start:
            continue
        if not flat or t % every == 0:
            flat = flat_entries(v, sharp)
        pairs = zip(old, w, kappa, flat, strict=True)
        w = [x + (1 + k * p) * (y - x) for x, y, k, p in pairs]
    return w

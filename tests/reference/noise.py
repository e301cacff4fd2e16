"""Random weight perturbation of half of each batch.

In float64, without a line of the package it is there to check.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Loss = Callable[[list[Tensor]], Tensor]

#: From step and tensor to a standard normal draw of the tensor's shape.
Draw = Callable[[int, Tensor, int], Tensor]


class Base(Protocol):
    def __call__(self, w: list[Tensor], v: list[Tensor]) -> list[Tensor]:
        """The weights after a step along ``v``."""
        ...


def gradients(loss: Loss, w: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in w]
    return list(torch.autograd.grad(loss(leaves), leaves))


def deviation(t: Tensor, sigma: float) -> Tensor:
    """``sigma ||w_i||`` at every entry of row i; of a vector, of all of it."""
    if t.dim() < 2:
        return torch.full_like(t, sigma * math.sqrt(float((t * t).sum())))
    sizes = [sigma * math.sqrt(float((row * row).sum())) for row in t]
    return torch.stack([torch.full_like(t[0], size) for size in sizes])


def split_rwp(
    halves: list[tuple[Loss, Loss]],
    wholes: list[Loss],
    w: list[Tensor],
    base: Base,
    rho: list[float],
    *,
    steps: int,
    mix: float,
    draw: Draw,
) -> list[Tensor]:
    """One half at ``w``, the other at noise whose deviation grows along a cosine."""
    for t, ((first, second), whole) in enumerate(zip(halves, wholes, strict=True)):
        grown = (1 - math.cos(math.pi * min(t / steps, 1))) / 2
        if grown == 0:
            w = base(w, gradients(whole, w))
            continue
        there = [
            x + deviation(x, grown * rho[i]) * draw(t, x, i) for i, x in enumerate(w)
        ]
        pairs = zip(gradients(first, w), gradients(second, there), strict=True)
        w = base(w, [mix * a + (1 - mix) * b for a, b in pairs])
    return w

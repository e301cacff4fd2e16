"""m-SAM: each micro-batch of m examples climbs by itself; their gradients are averaged.

Eq. 2 for p = 2, in float64, without a line of the package it is there to check.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[list[Tensor], Tensor, Tensor], Tensor]


def m_sam_gradients(
    loss: Loss, w: list[Tensor], x: Tensor, y: Tensor, *, m: int, rho: float
) -> list[Tensor]:
    """The vector to descend; ``loss`` is the mean over the examples it is given."""
    sums = [torch.zeros_like(t) for t in w]
    parts = len(x) // m
    for k in range(parts):
        x_k, y_k = x[k * m : (k + 1) * m], y[k * m : (k + 1) * m]
        leaves = [t.detach().clone().requires_grad_() for t in w]
        g = torch.autograd.grad(loss(leaves, x_k, y_k), leaves)
        length = torch.stack([t.pow(2).sum() for t in g]).sum().sqrt()
        moved = [
            (t.detach() + rho * d / length).requires_grad_()
            for t, d in zip(w, g, strict=True)
        ]
        g_eps = torch.autograd.grad(loss(moved, x_k, y_k), moved)
        sums = [s + d / parts for s, d in zip(sums, g_eps, strict=True)]
    return sums

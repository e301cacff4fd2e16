"""Flat-LoRA, from the paper's formulas and without a line of the package.

Li, He, Li, Wang, Shang, Huang. Flat-LoRA: Low-Rank Adaptation over a Flat Loss
Landscape. ICML 2025, arXiv:2409.14396. A layer computes ``x (W + s B A)^T``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Base = Callable[[list[Tensor], list[Tensor]], list[Tensor]]

#: From the frozen weights and the factors (A and B of every layer in turn).
LoraLoss = Callable[[list[Tensor], list[Tensor]], Tensor]

#: The same draw in every process: from the step, the layer and the size.
Draw = Callable[[int, int, torch.Size], Tensor]


def deviations(w: Tensor, s: float, b: Tensor, a: Tensor, rho: float) -> Tensor:
    """``sigma_i = rho / sqrt(n_in) ||W'_i||`` of every output i, row by row."""
    whole = w + s * b @ a
    rows = [float(row.norm()) for row in whole]
    return torch.tensor(
        [rho / math.sqrt(w.shape[1]) * size for size in rows], dtype=w.dtype
    )


def flat_lora(
    losses: Sequence[LoraLoss],
    frozen: list[Tensor],
    factors: list[Tensor],
    base: Base,
    draw: Draw,
    *,
    scaling: float,
    rho: float,
    steps: int,
) -> list[Tensor]:
    """The factors after a training; ``frozen`` is never written to."""
    for t, loss in enumerate(losses):
        grown = rho * (1 - math.cos(math.pi * min(t, steps) / steps)) / 2
        noisy: list[Tensor] = []
        for k, w in enumerate(frozen):
            a, b = factors[2 * k], factors[2 * k + 1]
            sigma = deviations(w, scaling, b, a, grown)
            z = draw(t, k, w.shape)
            noisy.append(
                torch.stack([row + sigma[i] * z[i] for i, row in enumerate(w)])
            )
        at = [f.detach().requires_grad_() for f in factors]
        g = torch.autograd.grad(loss(noisy, at), at)
        factors = base([f.detach() for f in at], list(g))
    return factors

"""Methods that choose examples or weights, or nest steps, straight from formulas.

In float64, without a line of the package it is there to check. ``rho`` has an entry per
tensor. Losses are given per example, so that a rule can choose among them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tests.reference.points import Base, added, gradients, inner, long

#: The weights to the loss of each example.
Each = Callable[[list[Tensor]], Tensor]


def mean_of(each: Each, chosen: list[int] | None = None) -> Callable[..., Tensor]:
    """The mean loss, of all examples or of these."""
    return lambda w: each(w).mean() if chosen is None else each(w)[chosen].mean()


def worst(values: Tensor, n: int) -> list[int]:
    ranked = sorted(range(len(values)), key=lambda i: -float(values[i]))
    return ranked[:n]


def matched_sam(
    losses: list[Each],
    w: list[Tensor],
    base: Base,
    rho: list[float],
    first: int,
    share: float,
    decay: float,
) -> tuple[list[Tensor], float]:
    """Climbs on the ``first`` examples; the weights, and the ratio of lengths."""
    ratio = share**-0.5
    for each in losses:
        g = gradients(mean_of(each, list(range(first))), w)
        there = added(1, w, 1, long([ratio * r for r in rho], g))
        g_eps = gradients(mean_of(each), there)
        ratio = decay * ratio + (1 - decay) * length(g) / length(g_eps)
        w = base(w, g_eps)
    return w, ratio


def k_sam(
    losses: list[Each], w: list[Tensor], base: Base, rho: list[float], n: int
) -> list[Tensor]:
    """Both gradients are those of the ``n`` examples with the highest losses at w."""
    for each in losses:
        loss = mean_of(each, worst(each(w), n))
        there = added(1, w, 1, long(rho, gradients(loss, w)))
        w = base(w, gradients(loss, there))
    return w


def esam(
    losses: list[Each],
    w: list[Tensor],
    base: Base,
    rho: list[float],
    moves: list[list[bool]],
    beta: float,
    n: int,
) -> list[Tensor]:
    """``eps = rho / beta`` long over the tensors that move; ``n`` examples descend."""
    for each, moving in zip(losses, moves, strict=True):
        g = gradients(mean_of(each), w)
        g = [x if m else torch.zeros_like(x) for x, m in zip(g, moving, strict=True)]
        far = [r / beta for r in rho]
        there = added(1, w, 1, long(far, g) if any(moving) else g)
        chosen = worst(each(there) - each(w), n)
        w = base(w, gradients(mean_of(each, chosen), there))
    return w


def fisher_mask(
    each: Each, w: list[Tensor], groups: list[list[int]], keep: int
) -> list[Tensor]:
    """1 at the ``keep`` weights with the largest sums of squared gradients."""
    total = [torch.zeros_like(t) for t in w]
    for chosen in groups:
        g = gradients(mean_of(each, chosen), w)
        total = [f + x**2 for f, x in zip(total, g, strict=True)]
    flat = torch.cat([f.flatten() for f in total])
    least = flat.sort(descending=True).values[keep - 1]
    return [(f >= least).to(f) for f in total]


def sparse_sam(
    losses: list[Each],
    w: list[Tensor],
    base: Base,
    rho: list[float],
    groups: list[list[int]],
    keep: int,
    every: int,
) -> tuple[list[Tensor], list[Tensor]]:
    """``rho g / ||g||`` times the mask; weights and mask after all steps."""
    mask: list[Tensor] = []
    for k, each in enumerate(losses):
        if k % every == 0:
            mask = fisher_mask(each, w, groups, keep)
        eps = long(rho, gradients(mean_of(each), w))
        there = [t + e * m for t, e, m in zip(w, eps, mask, strict=True)]
        w = base(w, gradients(mean_of(each), there))
    return w, mask


def lookbehind_sam(
    losses: list[Each],
    w: list[Tensor],
    base: Base,
    rho: list[float],
    k: int,
    alpha: float,
) -> list[Tensor]:
    """For each loss k climbs of z and k steps of w, and then back to a part of the way.

    Every climb computes its gradient anew, as the authors' code does.
    """
    for each in losses:
        loss = mean_of(each)
        slow = z = w
        for _ in range(k):
            z = added(1, z, 1, long(rho, gradients(loss, z)))
            w = base(w, gradients(loss, z))
        w = added(1 - alpha, slow, alpha, w)
    return w


def bsam(
    losses: list[Each],
    w: list[Tensor],
    noise: list[list[Tensor]],
    *,
    lr: float,
    rho: list[float],
    n: int,
    precision: float,
    betas: tuple[float, float],
    damping: float,
    start: float,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Weights, m and s after all steps; ``noise`` is z of each step."""
    one, two = betas
    delta = precision / n
    m = [torch.zeros_like(t) for t in w]
    s = [torch.full_like(t, start) for t in w]
    for each, z in zip(losses, noise, strict=True):
        drawn = [w[i] + z[i] / (n * s[i]) ** 0.5 for i in range(len(w))]
        g = gradients(mean_of(each), drawn)
        up = [w[i] + rho[i] * g[i] / s[i] for i in range(len(w))]
        g_eps = gradients(mean_of(each), up)
        for i in range(len(w)):
            m[i] = one * m[i] + (1 - one) * (g_eps[i] + delta * w[i])
        w = [w[i] - lr * m[i] / s[i] for i in range(len(w))]
        for i in range(len(w)):
            size = s[i].sqrt() * g[i].abs()
            s[i] = two * s[i] + (1 - two) * (size + damping + delta)
    return w, m, s


def length(x: list[Tensor]) -> float:
    return inner(x, x) ** 0.5

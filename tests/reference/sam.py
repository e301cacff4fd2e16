"""SAM around SGD and AdamW, tensor by tensor, as the paper has it (eq. 2, alg. 1).

Slow, in float64, without options, and without a line of the package it is there to
check. It scales nothing, so gradients must be of ordinary size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[list[Tensor]], Tensor]


def gradients(loss: Loss, w: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in w]
    return list(torch.autograd.grad(loss(leaves), leaves))


def perturbation(g: list[Tensor], p: float, rho: float) -> list[Tensor]:
    """Eq. 2; for p = 1 its limit."""
    if p == 1:
        top = max(t.abs().max().item() for t in g)
        ties = sum(int((t.abs() == top).sum()) for t in g)
        return [rho * t.sign() * (t.abs() == top) / ties for t in g]
    if math.isinf(p):
        return [rho * t.sign() for t in g]
    q = 1 / (1 - 1 / p)
    total = sum(float((t.abs() ** q).sum()) for t in g)
    return [rho * t.sign() * t.abs() ** (q - 1) / total ** (1 / p) for t in g]


def sam_gradients(loss: Loss, w: list[Tensor], p: float, rho: float) -> list[Tensor]:
    eps = perturbation(gradients(loss, w), p, rho)
    return gradients(loss, [t + e for t, e in zip(w, eps, strict=True)])


def sgd_sam(
    loss: Loss,
    w: list[Tensor],
    *,
    steps: int,
    rho: float,
    p: float,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and momentum buffers after ``steps`` steps."""
    w = [t.detach().clone() for t in w]
    m = [torch.zeros_like(t) for t in w]
    for _ in range(steps):
        g = sam_gradients(loss, w, p, rho)
        for i in range(len(w)):
            m[i] = momentum * m[i] + g[i] + weight_decay * w[i]
            w[i] = w[i] - lr * m[i]
    return w, m


def adamw_sam(
    loss: Loss,
    w: list[Tensor],
    *,
    steps: int,
    rho: float,
    p: float,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Weights, first and second moments after ``steps`` steps."""
    b1, b2 = betas
    w = [t.detach().clone() for t in w]
    m = [torch.zeros_like(t) for t in w]
    v = [torch.zeros_like(t) for t in w]
    for k in range(1, steps + 1):
        g = sam_gradients(loss, w, p, rho)
        for i in range(len(w)):
            m[i] = b1 * m[i] + (1 - b1) * g[i]
            v[i] = b2 * v[i] + (1 - b2) * g[i] ** 2
            w[i] = w[i] * (1 - lr * weight_decay)
            m_hat, v_hat = m[i] / (1 - b1**k), v[i] / (1 - b2**k)
            w[i] = w[i] - lr * m_hat / (v_hat.sqrt() + eps)
    return w, m, v

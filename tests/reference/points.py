"""Methods of more than two gradients, straight from formulas.

In float64, without a line of the package it is there to check; norms are those of all
tensors together. ``rho`` has an entry per tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[list[Tensor]], Tensor]
#: ``w`` and ``v`` to the weights after a step along ``v``.
Base = Callable[[list[Tensor], list[Tensor]], list[Tensor]]
#: A loss and the weights to what is descended.
Rule = Callable[[Loss, list[Tensor]], list[Tensor]]


def descend(
    losses: list[Loss], w: list[Tensor], base: Base, rule: Rule
) -> list[Tensor]:
    """The weights after a step for each of the losses."""
    for loss in losses:
        w = base(w, rule(loss, w))
    return w


def gradients(loss: Loss, w: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in w]
    return list(torch.autograd.grad(loss(leaves), leaves))


def inner(a: list[Tensor], b: list[Tensor]) -> float:
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


def added(c: float, a: list[Tensor], d: float, b: list[Tensor]) -> list[Tensor]:
    return [c * x + d * y for x, y in zip(a, b, strict=True)]


def long(rho: list[float], x: list[Tensor]) -> list[Tensor]:
    """``rho x / ||x||``."""
    size = math.sqrt(inner(x, x))
    return [r * t / size for r, t in zip(rho, x, strict=True)]


def multi_step_sam(rho: list[float], k: int) -> Rule:
    """k steps ``R g / ||g||`` up the loss, each brought back to ``||R^-1 eps|| <= 1``.

    Where the radius is zero nothing moves and nothing is measured.
    """

    def rule(loss: Loss, w: list[Tensor]) -> list[Tensor]:
        eps = [torch.zeros_like(t) for t in w]
        for _ in range(k):
            up = gradients(loss, added(1, w, 1, eps))
            eps = added(1, eps, 1, long(rho, up))
            shares = [t / r for r, t in zip(rho, eps, strict=True) if r > 0]
            size = math.sqrt(inner(shares, shares))
            if size > 1:
                eps = [t / size for t in eps]
        return gradients(loss, added(1, w, 1, eps))

    return rule


def second_order_sam(rho: list[float]) -> Rule:
    """The gradient of ``L(w + R grad L(w) / ||grad L(w)||)``, differentiated."""

    def rule(loss: Loss, w: list[Tensor]) -> list[Tensor]:
        leaves = [t.detach().clone().requires_grad_() for t in w]
        g = torch.autograd.grad(loss(leaves), leaves, create_graph=True)
        size = torch.stack([(t * t).sum() for t in g]).sum().sqrt()
        there = [t + r * x / size for t, r, x in zip(leaves, rho, g, strict=True)]
        return list(torch.autograd.grad(loss(there), leaves))

    return rule


def cr_sam(rho: list[float], gamma: float, beta: float) -> Rule:
    """``g+ + gamma (g+ + g- - 2 g) + beta (g+ - g-)``."""

    def rule(loss: Loss, w: list[Tensor]) -> list[Tensor]:
        g = gradients(loss, w)
        eps = long(rho, g)
        up = gradients(loss, added(1, w, 1, eps))
        down = gradients(loss, added(1, w, -1, eps))
        return [
            up[i] + gamma * (up[i] + down[i] - 2 * g[i]) + beta * (up[i] - down[i])
            for i in range(len(w))
        ]

    return rule


def gam(
    rho: list[float], slope: list[float], alpha: float, beta: float, gamma: float
) -> Rule:
    """``v - gamma (m - proj m)`` from four gradients.

    ``v = alpha g1 + (1 - alpha) g3`` and ``m = g0 + (1 - beta) g2``, and the projection
    is that onto v.
    """

    def rule(loss: Loss, w: list[Tensor]) -> list[Tensor]:
        g0 = gradients(loss, w)
        g1 = gradients(loss, added(1, w, 1, long(slope, g0)))
        there = added(1, w, 1, long(rho, added(1, g1, -1, g0)))
        g2 = gradients(loss, there)
        g3 = gradients(loss, added(1, there, 1, long(slope, g2)))
        v = added(alpha, g1, 1 - alpha, g3)
        m = added(1, g0, 1 - beta, g2)
        across = added(1, m, -inner(m, v) / inner(v, v), v)
        return added(1, v, -gamma, across)

    return rule

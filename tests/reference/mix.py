"""Methods that descend a combination of the gradients at ``w`` and ``w + eps``.

In float64, without a line of the package it is there to check. ``rho`` has an entry per
tensor; norms and inner products are those of all tensors together.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[list[Tensor]], Tensor]
Vector = list[Tensor]
#: ``w`` and ``v`` to the weights after a step along ``v``.
Base = Callable[[Vector, Vector], Vector]
#: ``g`` and ``g_eps`` to what is descended.
Mix = Callable[[Vector, Vector], Vector]


def gradients(loss: Loss, w: Vector) -> Vector:
    leaves = [t.detach().clone().requires_grad_() for t in w]
    return list(torch.autograd.grad(loss(leaves), leaves))


def dot(a: Vector, b: Vector) -> float:
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


def sam_pair(loss: Loss, w: Vector, rho: list[float]) -> tuple[Vector, Vector]:
    """``g`` at ``w``, and ``g_eps`` at ``w + rho g / ||g||``."""
    g = gradients(loss, w)
    size = math.sqrt(dot(g, g))
    there = [w[i] + rho[i] * g[i] / size for i in range(len(w))]
    return g, gradients(loss, there)


def descend(
    losses: list[Loss], w: Vector, base: Base, mix: Mix, *, rho: list[float]
) -> Vector:
    """The weights after a step for each of the losses."""
    for loss in losses:
        w = base(w, mix(*sam_pair(loss, w, rho)))
    return w


def gnp(alpha: float) -> Mix:
    """``(1 - alpha) g + alpha g_eps``."""
    return lambda g, ge: [
        (1 - alpha) * a + alpha * b for a, b in zip(g, ge, strict=True)
    ]


def gsam(alpha: float) -> Mix:
    """``g_eps`` less alpha times the part of ``g`` that is orthogonal to it."""

    def mix(g: Vector, ge: Vector) -> Vector:
        along = dot(g, ge) / dot(ge, ge)
        orthogonal = [a - along * b for a, b in zip(g, ge, strict=True)]
        return [b - alpha * o for b, o in zip(ge, orthogonal, strict=True)]

    return mix


def coupled_wsam(gamma: float) -> Mix:
    """``g + gamma / (1 - gamma) (g_eps - g)``."""
    odds = gamma / (1 - gamma)
    return lambda g, ge: [a + odds * (b - a) for a, b in zip(g, ge, strict=True)]


def stable_sam(g: Vector, ge: Vector) -> Vector:
    """``g_eps`` with the length of ``g``."""
    share = math.sqrt(dot(g, g)) / math.sqrt(dot(ge, ge))
    return [share * b for b in ge]


def wsam(
    losses: list[Loss],
    w: Vector,
    base: Base,
    *,
    rho: list[float],
    gamma: float,
    lr: list[float],
) -> Vector:
    """The base's step along g, and then one along ``g_eps - g`` by itself."""
    odds = gamma / (1 - gamma)
    for loss in losses:
        g, ge = sam_pair(loss, w, rho)
        w = base(w, g)
        w = [w[i] - lr[i] * odds * (ge[i] - g[i]) for i in range(len(w))]
    return w


def sagm(
    losses: list[Loss], w: Vector, base: Base, *, rho: list[float], alpha: float
) -> Vector:
    """The mean of both gradients, with ``eps = (rho / ||g|| - alpha) g``."""
    for loss in losses:
        g = gradients(loss, w)
        size = math.sqrt(dot(g, g))
        there = [w[i] + (rho[i] / size - alpha) * g[i] for i in range(len(w))]
        ge = gradients(loss, there)
        w = base(w, [(a + b) / 2 for a, b in zip(g, ge, strict=True)])
    return w

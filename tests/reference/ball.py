"""Methods that descend the gradient at ``w + eps``, each with an ``eps`` of its own.

In float64, without a line of the package it is there to check. ``rho`` has an entry per
tensor. A norm is that of all tensors together unless the method says otherwise, also
where radii differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[list[Tensor]], Tensor]
#: ``w`` and ``v`` to the weights after a step along ``v``.
Base = Callable[[list[Tensor], list[Tensor]], list[Tensor]]
#: ``w`` and ``g`` to ``eps``.
Perturbation = Callable[[list[Tensor], list[Tensor]], list[Tensor]]


def gradients(loss: Loss, w: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in w]
    return list(torch.autograd.grad(loss(leaves), leaves))


def length(x: list[Tensor]) -> float:
    return math.sqrt(sum(float((t * t).sum()) for t in x))


def descend(
    losses: list[Loss], w: list[Tensor], base: Base, perturbation: Perturbation
) -> list[Tensor]:
    """The weights after a step for each of the losses."""
    w = [t.detach().clone() for t in w]
    for loss in losses:
        eps = perturbation(w, gradients(loss, w))
        there = [t + e for t, e in zip(w, eps, strict=True)]
        w = base(w, gradients(loss, there))
    return w


def asam(rho: list[float], eta: float, names: list[str]) -> Perturbation:
    """``rho T^2 g / ||T g||``; ``T = |w| + eta`` of weights, 1 of biases."""

    def perturbation(w: list[Tensor], g: list[Tensor]) -> list[Tensor]:
        t = [
            w_i.abs() + eta if "weight" in name else torch.ones_like(w_i)
            for name, w_i in zip(names, w, strict=True)
        ]
        size = length([t[i] * g[i] for i in range(len(g))])
        return [rho[i] * t[i] ** 2 * g[i] / size for i in range(len(g))]

    return perturbation


def fisher_sam(rho: list[float], eta: float) -> Perturbation:
    """``rho F^-1 g / sqrt(g' F^-1 g)``; ``F = 1 + eta diag(g^2)``."""

    def perturbation(w: list[Tensor], g: list[Tensor]) -> list[Tensor]:
        del w
        solved = [x / (1 + eta * x**2) for x in g]
        square = sum(float((a * b).sum()) for a, b in zip(g, solved, strict=True))
        return [rho[i] * solved[i] / math.sqrt(square) for i in range(len(g))]

    return perturbation


def layer_sam(rho: list[float]) -> Perturbation:
    """``rho ||w_l|| g_l / ||g_l||``, a layer being a tensor."""

    def perturbation(w: list[Tensor], g: list[Tensor]) -> list[Tensor]:
        return [rho[i] * length([w[i]]) * g[i] / length([g[i]]) for i in range(len(g))]

    return perturbation


def usam(rho: list[float]) -> Perturbation:
    """``rho g``."""
    return lambda w, g: [r * x for r, x in zip(rho, g, strict=True)]


def sam_on(rho: list[float], normalises: list[bool]) -> Perturbation:
    """``rho g / ||g||`` of the normalisation layers, and 0 of all others."""

    def perturbation(w: list[Tensor], g: list[Tensor]) -> list[Tensor]:
        del w
        size = length([x for x, of in zip(g, normalises, strict=True) if of])
        return [rho[i] * normalises[i] * g[i] / size for i in range(len(g))]

    return perturbation

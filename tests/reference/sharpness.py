"""Measures of sharpness from their formulas, on a loss of a list of tensors.

Foret et al. 2021 (one step, m-sharpness) and Andriushchenko et al. 2023 (worst-case and
average-case, adaptive or not, logit normalisation).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.reference.sam import Loss, gradients, perturbation


def one_step(loss: Loss, w: list[Tensor], rho: float, p: float) -> float:
    """``L(w + eps) - L(w)`` at eq. 2's eps."""
    eps = perturbation(gradients(loss, w), p, rho)
    return _rise(loss, w, eps)


def adaptive_one_step(loss: Loss, w: list[Tensor], rho: float, p: float) -> float:
    """The same for ``|| eps / |w| ||_p <= rho``."""
    g = gradients(loss, w)
    scaled = perturbation([t.abs() * g_i for t, g_i in zip(w, g, strict=True)], p, rho)
    eps = [t.abs() * e for t, e in zip(w, scaled, strict=True)]
    return _rise(loss, w, eps)


def worst_case(
    loss: Loss,
    w: list[Tensor],
    rho: float,
    p: float,
    *,
    adaptive: bool,
    starts: int = 4,
    steps: int = 400,
) -> float:
    """The maximum over ``|| eps / |w| ||_p <= rho``, or ``|| eps ||_p``; p 2 or inf.

    Projected ascent on ``v = eps / c`` from several random starts, with many steps of
    a length that falls from ``rho`` to ``rho / 1000``.
    """
    c = [t.abs() if adaptive else torch.ones_like(t) for t in w]
    draw = torch.Generator().manual_seed(1)
    best = 0.0
    for _ in range(starts):
        v = [torch.randn(t.shape, generator=draw, dtype=t.dtype) for t in w]
        v = _inside([rho * x for x in v], rho, p)
        for k in range(steps):
            length = rho * 1e-3 ** (k / steps)
            at = [t + c_i * x for t, c_i, x in zip(w, c, v, strict=True)]
            slope = [c_i * g for c_i, g in zip(c, gradients(loss, at), strict=True)]
            step = perturbation(slope, p, length)
            v = _inside([x + s for x, s in zip(v, step, strict=True)], rho, p)
            eps = [c_i * x for c_i, x in zip(c, v, strict=True)]
            best = max(best, _rise(loss, w, eps))
    return best


def m_sharpness(losses: list[Loss], w: list[Tensor], rho: float, p: float) -> float:
    """The mean of `one_step` over the losses of groups of m examples."""
    return sum(one_step(loss, w, rho, p) for loss in losses) / len(losses)


def normalised(logits: Tensor) -> Tensor:
    """Each row divided by the root mean square of what it is off its mean."""
    rows = []
    for row in logits:
        off = row - row.sum() / len(row)
        rows.append(row / (off.square().sum() / len(row)).sqrt())
    return torch.stack(rows)


def _rise(loss: Loss, w: list[Tensor], eps: list[Tensor]) -> float:
    return float(loss([t + e for t, e in zip(w, eps, strict=True)]) - loss(w))


def _inside(v: list[Tensor], rho: float, p: float) -> list[Tensor]:
    if math.isinf(p):
        return [x.clamp(-rho, rho) for x in v]
    size = math.sqrt(sum(float(x.square().sum()) for x in v))
    return [x * min(1.0, rho / size) for x in v]

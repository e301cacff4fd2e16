"""Methods that climb along something other than the gradient at ``w``.

In float64, without a line of the package it is there to check. ``rho`` has an entry per
tensor, norms are those of all tensors together. Each runs a step for every one of the
losses it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Loss = Callable[[list[Tensor]], Tensor]
Vector = list[Tensor]


class Base(Protocol):
    """A base optimizer with a first moment."""

    m: list[Tensor]

    def __call__(self, w: Vector, v: Vector) -> Vector:
        """The weights after a step along ``v``."""
        ...


def gradients(loss: Loss, w: Vector) -> Vector:
    leaves = [t.detach().clone().requires_grad_() for t in w]
    return list(torch.autograd.grad(loss(leaves), leaves))


def moved(w: Vector, d: Vector, rho: list[float]) -> Vector:
    """``w + rho d / ||d||``."""
    size = math.sqrt(sum(float((t * t).sum()) for t in d))
    return [w[i] + rho[i] * d[i] / size for i in range(len(w))]


def friendly_sam(
    losses: list[Loss],
    w: Vector,
    base: Base,
    *,
    rho: list[float],
    sigma: float,
    decay: float,
) -> tuple[Vector, Vector]:
    """Weights and m; ``d = g - sigma m`` with the m of the steps before."""
    m: Vector | None = None
    for loss in losses:
        g = gradients(loss, w)
        if m is None:
            d, m = g, g
        else:
            d = [a - sigma * b for a, b in zip(g, m, strict=True)]
            m = [decay * b + (1 - decay) * a for a, b in zip(g, m, strict=True)]
        w = base(w, gradients(loss, moved(w, d, rho)))
    assert m is not None
    return w, m


def vasso(
    losses: list[Loss], w: Vector, base: Base, *, rho: list[float], theta: float
) -> tuple[Vector, Vector]:
    """Weights and ``d <- (1 - theta) d + theta g``; the first d is g."""
    d: Vector | None = None
    for loss in losses:
        g = gradients(loss, w)
        old = g if d is None else d
        d = [(1 - theta) * b + theta * a for a, b in zip(g, old, strict=True)]
        w = base(w, gradients(loss, moved(w, d, rho)))
    assert d is not None
    return w, d


def gcsam(losses: list[Loss], w: Vector, base: Base, *, rho: list[float]) -> Vector:
    """Weights; both gradients without the mean of each row, filter and so on."""
    for loss in losses:
        there = moved(w, [centred(x) for x in gradients(loss, w)], rho)
        w = base(w, [centred(x) for x in gradients(loss, there)])
    return w


def centred(x: Tensor) -> Tensor:
    """Of each ``x[i]`` its mean is taken off, if that has entries to average."""
    if x.dim() < 2:
        return x
    return torch.stack([row - row.sum() / row.numel() for row in x])


def zsharp(
    losses: list[Loss], w: Vector, base: Base, *, rho: list[float], share: float
) -> Vector:
    """Weights; the ascent takes the outliers of each tensor."""
    for loss in losses:
        d = [outliers(x, share) for x in gradients(loss, w)]
        w = base(w, gradients(loss, moved(w, d, rho)))
    return w


def outliers(x: Tensor, share: float) -> Tensor:
    """``x`` where ``|x - mean| / std`` is above its quantile; all of x if nowhere."""
    entries = x.flatten().tolist()
    n = len(entries)
    mean = math.fsum(entries) / n
    std = math.sqrt(math.fsum((e - mean) ** 2 for e in entries) / n)
    if std == 0:
        return x
    z = [abs(e - mean) / std for e in entries]
    top = quantile(z, share)
    if not any(score > top for score in z):
        return x
    kept = [e if score > top else 0.0 for e, score in zip(entries, z, strict=True)]
    return torch.tensor(kept, dtype=x.dtype).view_as(x)


def quantile(values: list[float], share: float) -> float:
    """On the line between its two neighbours in order."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def stale_sam(
    losses: list[Loss], w: Vector, base: Base, *, rho: list[float]
) -> tuple[Vector, Vector]:
    """Weights and what the last step descended; the first step climbs nothing."""
    v: Vector | None = None
    for loss in losses:
        v = gradients(loss, w if v is None else moved(w, v, rho))
        w = base(w, v)
    assert v is not None
    return w, v


def momentum_sam(
    losses: list[Loss], w: Vector, base: Base, *, rho: list[float]
) -> Vector:
    """Weights; the gradient is that at ``w - rho m / ||m||``."""
    for k, loss in enumerate(losses):
        down = [-r for r in rho]
        w = base(w, gradients(loss, moved(w, base.m, down) if k else w))
    return w


def sampa(
    losses: list[Loss],
    before: list[Loss],
    w: Vector,
    base: Base,
    *,
    rho: list[float],
    lr: float,
    weight: float,
) -> tuple[Vector, Vector]:
    """Weights, and the gradient one step ahead.

    ``before`` has the losses of the perturbed weights, and ``losses`` those of the
    weights ahead.
    """
    g: Vector | None = None
    for loss, last in zip(losses, before, strict=True):
        above = w if g is None else moved(w, g, rho)
        ahead = w if g is None else [t - lr * d for t, d in zip(w, g, strict=True)]
        g = gradients(loss, ahead)
        pairs = zip(gradients(last, above), g, strict=True)
        w = base(w, [(1 - weight) * a + weight * b for a, b in pairs])
    assert g is not None
    return w, g

"""Methods that remember, where every micro-batch of a step climbs by itself.

In float64, without a line of the package it is there to check. A step has a list of
losses, one per micro-batch; what it descends is the sum of what these find, and what it
remembers is their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Vector = list[Tensor]
Loss = Callable[[Vector], Tensor]
Base = Callable[[Vector, Vector], Vector]


def gradients(loss: Loss, w: Vector) -> Vector:
    leaves = [t.detach().clone().requires_grad_() for t in w]
    return list(torch.autograd.grad(loss(leaves), leaves))


def inner(a: Vector, b: Vector) -> float:
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


def plus(a: Vector, c: float, b: Vector) -> Vector:
    return [x + c * y for x, y in zip(a, b, strict=True)]


def total(vectors: list[Vector]) -> Vector:
    return [torch.stack(xs).sum(0) for xs in zip(*vectors, strict=True)]


def mean(vectors: list[Vector]) -> Vector:
    return [x / len(vectors) for x in total(vectors)]


def above(w: Vector, d: Vector, rho: float) -> Vector:
    return plus(w, rho / math.sqrt(inner(d, d)), d)


def friendly_sam(
    steps: list[list[Loss]], w: Vector, base: Base, rho: float
) -> tuple[Vector, Vector]:
    """Weights and m; sigma is 1, the decay 0.95."""
    m: Vector | None = None
    for losses in steps:
        found: list[Vector] = []
        seen: list[Vector] = []
        for loss in losses:
            g = gradients(loss, w)
            d = g if m is None else plus(g, -1.0, m)
            seen.append(g if m is None else plus([0.95 * x for x in m], 0.05, g))
            found.append(gradients(loss, above(w, d, rho)))
        m = mean(seen)
        w = base(w, total(found))
    return w, m or []


def vasso(
    steps: list[list[Loss]], w: Vector, base: Base, rho: float
) -> tuple[Vector, Vector]:
    """Weights and d; theta is 0.9."""
    d: Vector | None = None
    for losses in steps:
        gs = [gradients(loss, w) for loss in losses]
        ds = [g if d is None else plus([0.9 * x for x in g], 0.1, d) for g in gs]
        ends = [above(w, each, rho) for each in ds]
        found = [gradients(loss, end) for loss, end in zip(losses, ends, strict=True)]
        d, w = mean(ds), base(w, total(found))
    return w, d or []


def stale_sam(
    steps: list[list[Loss]], w: Vector, base: Base, rho: float
) -> tuple[Vector, Vector]:
    """Weights and the mean gradient that the last step descended."""
    last: Vector | None = None
    for losses in steps:
        at = w if last is None else above(w, last, rho)
        found = [gradients(loss, at) for loss in losses]
        last, w = mean(found), base(w, total(found))
    return w, last or []


def alternating_sam(
    steps: list[list[Loss]], w: Vector, base: Base, rho: float
) -> tuple[Vector, Vector]:
    """Weights and the mean gradient of the last plain step."""
    first: Vector = []
    for t, losses in enumerate(steps):
        at = above(w, first, rho) if t % 2 else w
        found = [gradients(loss, at) for loss in losses]
        first = first if t % 2 else mean(found)
        w = base(w, total(found))
    return w, first


def looksam(
    steps: list[list[Loss]], w: Vector, base: Base, rho: float
) -> tuple[Vector, Vector]:
    """Weights and the mean direction; every third step is one of SAM, alpha is 0.7."""
    u: Vector = []
    for t, losses in enumerate(steps):
        found: list[Vector] = []
        units: list[Vector] = []
        for loss in losses:
            g = gradients(loss, w)
            if t % 3:
                size = 0.7 * math.sqrt(inner(g, g)) / math.sqrt(inner(u, u))
                found.append(plus(g, size, u))
                continue
            g_eps = gradients(loss, above(w, g, rho))
            part = plus(g_eps, -inner(g, g_eps) / inner(g, g), g)
            units.append([x / math.sqrt(inner(part, part)) for x in part])
            found.append(g_eps)
        u = mean(units) if units else u
        w = base(w, total(found))
    return w, u


def ae_sam(
    steps: list[list[Loss]], w: Vector, base: Base, rho: float
) -> tuple[Vector, tuple[float, float]]:
    """Weights, mean and variance; c goes from 1 to -1 along the steps."""
    mu, v, begun = 0.0, 0.0, False
    for t, losses in enumerate(steps):
        c = 1 - 2 * t / len(steps)
        mus: list[float] = []
        vs: list[float] = []
        found: list[Vector] = []
        for loss in losses:
            g = gradients(loss, w)
            s = inner(g, g)
            mus.append(0.9 * mu + 0.1 * s if begun else s)
            square = (s - mus[-1]) ** 2
            vs.append(0.9 * v + 0.1 * square if begun else square)
            climbs = s >= mus[-1] + c * math.sqrt(vs[-1])
            found.append(gradients(loss, above(w, g, rho)) if climbs else g)
        mu, v, begun = sum(mus) / len(mus), sum(vs) / len(vs), True
        w = base(w, total(found))
    return w, (mu, v)

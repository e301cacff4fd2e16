"""Methods that climb in some steps, or on a part of the batch, straight from formulas.

In float64, without a line of the package it is there to check. ``rho`` has an entry per
tensor; a norm is that of all tensors together.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[list[Tensor]], Tensor]
#: ``w`` and ``v`` to the weights after a step along ``v``.
Base = Callable[[list[Tensor], list[Tensor]], list[Tensor]]


def gradients(loss: Loss, w: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in w]
    return list(torch.autograd.grad(loss(leaves), leaves))


def inner(a: list[Tensor], b: list[Tensor]) -> float:
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


def above(w: list[Tensor], g: list[Tensor], rho: list[float]) -> list[Tensor]:
    """``w + rho g / ||g||``."""
    size = math.sqrt(inner(g, g))
    return [w[i] + rho[i] * g[i] / size for i in range(len(w))]


def in_these_steps(
    losses: list[Loss],
    w: list[Tensor],
    base: Base,
    rho: list[float],
    climbs: list[bool],
) -> list[Tensor]:
    """SAM where ``climbs`` says so, the base elsewhere."""
    for loss, sam in zip(losses, climbs, strict=True):
        g = gradients(loss, w)
        if sam:
            g = gradients(loss, above(w, g, rho))
        w = base(w, g)
    return w


def interval_sam(
    losses: list[Loss], w: list[Tensor], base: Base, rho: list[float], k: int
) -> list[Tensor]:
    """Steps 0, k, 2k and so on climb, k times as far."""
    climbs = [t % k == 0 for t in range(len(losses))]
    return in_these_steps(losses, w, base, [k * r for r in rho], climbs)


def late_sam(
    losses: list[Loss],
    w: list[Tensor],
    base: Base,
    rho: list[float],
    steps: int,
    share: float,
) -> list[Tensor]:
    """The last ``share`` of all steps climb."""
    plain = round(steps - share * steps)
    climbs = [t >= plain for t in range(len(losses))]
    return in_these_steps(losses, w, base, rho, climbs)


def late_subset_sam(
    parts: list[Loss],
    losses: list[Loss],
    w: list[Tensor],
    base: Base,
    rho: list[float],
    late: float,
    share: float,
    ramp: float,
) -> list[Tensor]:
    """The last ``late`` of all steps climb the loss of a part, further and further."""
    steps = len(losses)
    plain = round(steps - late * steps)
    growing = max(round(ramp * (steps - plain)), 1)
    for t, (part, loss) in enumerate(zip(parts, losses, strict=True)):
        grown = min((t - plain + 1) / growing, 1)
        far = [grown * r / math.sqrt(share) for r in rho]
        at = above(w, gradients(part, w), far) if t >= plain else w
        w = base(w, gradients(loss, at))
    return w


def ss_sam(
    losses: list[Loss],
    w: list[Tensor],
    base: Base,
    rho: list[float],
    coins: list[bool],
) -> list[Tensor]:
    """Each step has its coin."""
    return in_these_steps(losses, w, base, rho, coins)


def ae_sam(
    losses: list[Loss],
    w: list[Tensor],
    base: Base,
    rho: list[float],
    *,
    steps: int,
    decay: float,
    early: float,
    late: float,
) -> tuple[list[Tensor], float, float, list[bool]]:
    """Weights, the running mean and variance, and which steps climbed.

    ``mu <- d mu + (1 - d) s``, ``v <- d v + (1 - d) (s - mu)^2`` of ``s = ||g||^2``
    with ``mu = s`` in the first step; a step climbs if ``s >= mu + c sqrt(v)``.
    """
    mu, v, climbed = 0.0, 0.0, []
    for t, loss in enumerate(losses):
        g = gradients(loss, w)
        s = inner(g, g)
        mu = s if t == 0 else decay * mu + (1 - decay) * s
        v = decay * v + (1 - decay) * (s - mu) ** 2
        c = early + (late - early) * t / steps
        climbed.append(s >= mu + c * math.sqrt(v))
        if climbed[-1]:
            g = gradients(loss, above(w, g, rho))
        w = base(w, g)
    return w, mu, v, climbed


def looksam(
    losses: list[Loss],
    w: list[Tensor],
    base: Base,
    rho: list[float],
    *,
    k: int,
    alpha: float,
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights, and the unit vector of what the last step of SAM changed across g."""
    u: list[Tensor] = []
    for t, loss in enumerate(losses):
        g = gradients(loss, w)
        if t % k == 0:
            there = gradients(loss, above(w, g, rho))
            along = inner(g, there) / inner(g, g)
            across = [there[i] - along * g[i] for i in range(len(g))]
            size = math.sqrt(inner(across, across))
            u, v = [x / size for x in across], there
        else:
            size = math.sqrt(inner(g, g))
            v = [g[i] + alpha * size * u[i] for i in range(len(g))]
        w = base(w, v)
    return w, u


def subset_sam(
    parts: list[Loss],
    losses: list[Loss],
    w: list[Tensor],
    base: Base,
    rho: list[float],
    share: float,
) -> list[Tensor]:
    """Each step climbs the loss of a part, ``rho / sqrt(share)`` far."""
    far = [r / math.sqrt(share) for r in rho]
    for part, loss in zip(parts, losses, strict=True):
        w = base(w, gradients(loss, above(w, gradients(part, w), far)))
    return w


def alternating_sam(
    losses: list[Loss], w: list[Tensor], base: Base, rho: list[float]
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights, and the gradient that the last plain step descended.

    Steps 0, 2, 4 are plain; each of the others stands where the plain step before has
    led, and climbs along that one's gradient.
    """
    first: list[Tensor] = []
    for t, loss in enumerate(losses):
        if t % 2 == 0:
            first = gradients(loss, w)
            w = base(w, first)
        else:
            w = base(w, gradients(loss, above(w, first, rho)))
    return w, first

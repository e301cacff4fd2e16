"""Radii: how far do we climb, in which step?

Each takes the groups' ``sam_rho`` as the unit, so that it can be set per group and
scheduled from outside as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from flatmin.core._joints import Radius, of_group
from flatmin.core._program import Step


def times(c: float) -> Radius:
    """``c rho``."""
    return lambda step: [c * rho for rho in of_group(step)]


def scheduled(factor: Callable[[int], float]) -> Radius:
    """``factor(step) rho``."""
    return lambda step: [factor(step.index) * rho for rho in of_group(step)]


def linear(start: float, end: float, steps: int) -> Radius:
    """From ``start rho`` to ``end rho`` in so many steps, and then ``end rho``."""
    return scheduled(lambda k: start + (end - start) * min(k / steps, 1))


def cosine(start: float, end: float, steps: int) -> Radius:
    """As `linear`, along half a cosine."""

    def factor(k: int) -> float:
        share = (1 - math.cos(math.pi * min(k / steps, 1))) / 2
        return start + (end - start) * share

    return scheduled(factor)


def jump(at: int) -> Radius:
    """0, and ``rho`` from step ``at`` on."""
    return scheduled(lambda k: float(k >= at))


def with_rate(rho_min: float, lr_min: float, lr_max: float) -> Radius:
    """``rho_min`` to ``rho`` as the group's learning rate is ``lr_min`` to ``lr_max``.

    Reference: Zhuang et al. Surrogate Gap Minimization Improves Sharpness-Aware
    Training. ICLR 2022, arXiv:2203.08065.
    """

    def radii(step: Step) -> list[float]:
        shares = [
            (float(group["lr"]) - lr_min) / (lr_max - lr_min) for group in step.groups
        ]
        rhos = of_group(step)
        pairs = zip(shares, rhos, strict=True)
        return [rho_min + (rho - rho_min) * share for share, rho in pairs]

    return radii

"""Radii: how far do we climb, in which step?

Each takes the groups' ``sam_rho`` as the unit, so that it can be set per group and
scheduled from outside as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from flatmin.core._checks import at_least
from flatmin.core._joints import Radius, of_group
from flatmin.core._program import Step


def times(c: float) -> Radius:
    """``c rho``."""
    return scheduled(partial(_constant, c))


def scheduled(factor: Callable[[int], float]) -> Radius:
    """``factor(step) rho``."""
    return partial(_scheduled, factor)


def linear(start: float, end: float, steps: int) -> Radius:
    """From ``start rho`` to ``end rho`` in so many steps, and then ``end rho``."""
    at_least("steps", steps, 1)
    return scheduled(partial(_line, start, end, steps))


def cosine(start: float, end: float, steps: int) -> Radius:
    """As `linear`, along half a cosine."""
    at_least("steps", steps, 1)
    return scheduled(partial(_half_cosine, start, end, steps))


def jump(at: int) -> Radius:
    """0, and ``rho`` from step ``at`` on."""
    return scheduled(partial(_jump, at))


def with_rate(rho_min: float, lr_min: float, lr_max: float) -> Radius:
    """``rho_min`` to ``rho`` as the group's learning rate is ``lr_min`` to ``lr_max``.

    Reference: Zhuang et al. Surrogate Gap Minimization Improves Sharpness-Aware
    Training. ICLR 2022, arXiv:2203.08065.
    """
    if not lr_min < lr_max:
        raise ValueError(f"lr_max must be above lr_min = {lr_min}, got {lr_max}.")
    return partial(_with_rate, rho_min, lr_min, lr_max)


def _scheduled(factor: Callable[[int], float], step: Step) -> list[float]:
    return [factor(step.index) * rho for rho in of_group(step)]


def _constant(c: float, k: int) -> float:
    del k
    return c


def _line(start: float, end: float, steps: int, k: int) -> float:
    return start + (end - start) * min(k / steps, 1)


def _half_cosine(start: float, end: float, steps: int, k: int) -> float:
    share = (1 - math.cos(math.pi * min(k / steps, 1))) / 2
    return start + (end - start) * share


def _jump(at: int, k: int) -> float:
    return float(k >= at)


def _with_rate(rho_min: float, lr_min: float, lr_max: float, step: Step) -> list[float]:
    shares = [
        (float(group["lr"]) - lr_min) / (lr_max - lr_min) for group in step.groups
    ]
    pairs = zip(shares, of_group(step), strict=True)
    return [rho_min + (rho - rho_min) * share for share, rho in pairs]

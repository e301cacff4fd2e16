"""Radii: how far do we climb, in which step?

Each takes the groups' ``sam_rho`` as the unit, so that it can be set per group and
scheduled from outside as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from flatmin.core._checks import inside, integer
from flatmin.core._joints import Radius, of_group
from flatmin.core._program import Step


def times(c: float, radius: Radius = of_group) -> Radius:
    """``c rho``, or c times another radius."""
    return _Times(inside("c", c, "(0, inf)", "1 is the radius itself"), radius)


def scheduled(factor: Callable[[int], float]) -> Radius:
    """``factor(step) rho``; a factor is finite, zero or greater."""
    if not callable(factor):
        raise TypeError(f"factor must be a function of the step, got {factor!r}.")
    return partial(_scheduled, factor)


def linear(start: float, end: float, steps: int) -> Radius:
    """From ``start rho`` to ``end rho`` in so many steps, and then ``end rho``."""
    _check_ends(start, end, steps)
    return scheduled(partial(_line, start, end, steps))


def cosine(start: float, end: float, steps: int) -> Radius:
    """As `linear`, along half a cosine."""
    _check_ends(start, end, steps)
    return scheduled(partial(_half_cosine, start, end, steps))


def ramp(at: int, steps: int) -> Radius:
    """0 before step ``at``, and from there up to ``rho`` in ``steps`` equal parts."""
    integer("at", at, 0, "0 is the first step")
    integer("steps", steps, 1, "1 is a jump")
    return scheduled(partial(_ramp, at, steps))


def jump(at: int) -> Radius:
    """0 before step ``at``, and ``rho`` from there on."""
    return ramp(at, 1)


def with_rate(rho_min: float, lr_min: float, lr_max: float) -> Radius:
    """``rho_min`` to ``rho`` as the group's learning rate is ``lr_min`` to ``lr_max``.

    Reference: Zhuang et al. Surrogate Gap Minimization Improves Sharpness-Aware
    Training. ICLR 2022, arXiv:2203.08065.
    """
    ends = {"rho_min": rho_min, "lr_min": lr_min, "lr_max": lr_max}
    for name, value in ends.items():
        inside(name, value, "[0, inf)")
    if not lr_min < lr_max:
        raise ValueError(f"lr_max must be above lr_min = {lr_min}, got {lr_max}.")
    return partial(_with_rate, rho_min, lr_min, lr_max)


@dataclass(frozen=True, slots=True)
class _Times:
    c: float
    radius: Radius

    def __call__(self, step: Step) -> list[float]:
        return [self.c * rho for rho in self.radius(step)]

    def __repr__(self) -> str:
        return f"times({self.c})"


def _check_ends(start: float, end: float, steps: int) -> None:
    integer("steps", steps, 1, "they are those from start to end")
    inside("start", start, "[0, inf)", "1 is the radius itself")
    inside("end", end, "[0, inf)", "1 is the radius itself")
    if start == end == 0:
        raise ValueError("start and end are both 0, so that no step would climb.")


def _scheduled(factor: Callable[[int], float], step: Step) -> list[float]:
    now = inside(f"factor({step.index})", factor(step.index), "[0, inf)")
    return [now * rho for rho in of_group(step)]


def _line(start: float, end: float, steps: int, k: int) -> float:
    return start + (end - start) * min(k / steps, 1)


def _half_cosine(start: float, end: float, steps: int, k: int) -> float:
    share = (1 - math.cos(math.pi * min(k / steps, 1))) / 2
    return start + (end - start) * share


def _ramp(at: int, steps: int, k: int) -> float:
    return max(0.0, min((k - at + 1) / steps, 1.0))


def _with_rate(rho_min: float, lr_min: float, lr_max: float, step: Step) -> list[float]:
    shares = [
        (float(group["lr"]) - lr_min) / (lr_max - lr_min) for group in step.groups
    ]
    pairs = zip(shares, of_group(step), strict=True)
    return [_at_share(rho_min, rho, share) for share, rho in pairs]


def _at_share(rho_min: float, rho: float, share: float) -> float:
    radius = rho_min + (rho - rho_min) * share
    if radius < 0:
        raise ValueError(
            f"the learning rate is so far below lr_min that the radius is {radius}. "
            "Give with_rate() the lowest learning rate of the training."
        )
    return radius

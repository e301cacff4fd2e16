"""Whether a fast way to evaluate points gives the loop's losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

#: The coefficients of a point, one per direction.
Row: TypeAlias = Sequence[float]

#: From points to this process's part of their losses: ``[points]``, float64.
Losses: TypeAlias = Callable[[Sequence[Row]], Tensor]

#: How far apart two ways to sum up a loss may be, in units of its last digit.
_ROUNDING = 64

#: A rise tells ways apart if it is so many times what rounding explains.
_TELLING = 1000

#: How often a point may be moved away, and how many times as far each time.
_MOVES, _FURTHER = 10, 4.0


@dataclass(frozen=True, slots=True)
class Truth:
    """The loop's losses at the points by which ways are told apart.

    A way that does not move all of the weights is right at ``w``, and nearly right
    close to it. So rises are compared, not losses: where all points of a grid are so
    close that rounding could explain their rises, at a point further out.

    Attributes:
        rows: the points.
        losses: there.
        near: how far another way's losses may be from these.
        tells: whether one of the rises is too large for rounding.
    """

    rows: list[Row]
    losses: Tensor
    near: Tensor
    tells: bool

    def agrees(self, losses: Tensor) -> bool:
        """Whether a way's losses at the points are the loop's, up to rounding."""
        same = (losses == self.losses) | (losses.isnan() & self.losses.isnan())
        close = (losses - self.losses).abs() <= self.near
        return self.tells and bool((same | close).all())


def truth(loop: Losses, rows: Sequence[Row], w: Sequence[Tensor]) -> Truth:
    """Evaluate the telling points among ``rows``, and one further out if need be."""
    last_digit = max(torch.finfo(p.dtype).eps for p in w)
    some = _ends(rows)
    losses = loop([[0.0] * len(some[0]), *some])
    start = [c for c, x in zip(some, losses[1:], strict=True) if x.isfinite()]
    moves = any(map(any, some))
    found = _compared(some, losses, last_digit, moves)
    for k in range(1, _MOVES + 1):
        if found.tells or not start or not losses[-1].isfinite():
            break
        some = [*some, [_FURTHER**k * x for x in start[-1]]]
        losses = torch.cat([losses, loop(some[-1:])])
        found = _compared(some, losses, last_digit, moves)
    return found


def _compared(some: list[Row], losses: Tensor, last_digit: float, moves: bool) -> Truth:
    """The first loss is that of ``w``, where nothing moves."""
    largest = float(losses.abs().nan_to_num(0, posinf=0).max())
    rounding = last_digit * max(1.0, _ROUNDING * largest)
    rises = (losses[1:] - losses[0]).abs()
    # What is not finite has to be the same.
    rises = torch.where(rises.isfinite(), rises, 0)
    near = rounding + math.sqrt(last_digit) * rises
    told = rises > _TELLING * rounding
    return Truth(some, losses[1:], near, not moves or bool(told.any()))


def _ends(rows: Sequence[Row]) -> list[Row]:
    """The nearest point that is not ``w``, and the farthest.

    Far away, losses may all be infinite.
    """
    away = sorted(rows, key=lambda c: sum(x * x for x in c))
    moved = [c for c in away if any(c)] or away
    return moved[:1] if len(moved) == 1 else [moved[0], moved[-1]]

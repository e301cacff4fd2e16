"""Which parameters of the process are at ``w + eps`` now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from weakref import WeakSet

from torch import Tensor


class Mover(Protocol):
    """Moves parameters.

    Attributes:
        away: the parameters that it moved last.
    """

    away: list[Tensor]


#: Movers that have taken parameters away from ``w`` and have not brought them back.
_AWAY: WeakSet[Mover] = WeakSet()


def leave(mover: Mover) -> None:
    """Note that a mover's parameters have left ``w``."""
    _AWAY.add(mover)


def come_back(mover: Mover) -> None:
    """Note that they are at ``w`` again."""
    _AWAY.discard(mover)


def are_away(ps: Iterable[Tensor]) -> bool:
    """Whether one of these parameters is at ``w + eps`` now, in an open loop."""
    ours = set(map(id, ps))
    return any(id(p) in ours for mover in _AWAY for p in mover.away)

"""Seeds of a step's random draws: the same in all processes and in a resumed run."""

from __future__ import annotations

#: Purposes, kept so far apart that no two draws of a step share a seed.
DIRECTION, ROUNDING, ADAPTER = 0, 250_000, 500_000

_PRIME = 1_000_003


def seed_of(step: int, purpose: int, i: int) -> int:
    """The seed of the i-th tensor that a step draws for a purpose."""
    return step * _PRIME + purpose + i

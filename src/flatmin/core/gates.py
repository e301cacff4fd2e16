"""Gates: in which steps do we climb?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from itertools import accumulate

from flatmin.core._joints import Gate
from flatmin.core._program import Step


def every(k: int) -> Gate:
    """Every k-th step, the first included."""
    if k < 1:
        raise ValueError(f"every() needs k >= 1, got {k}.")
    return partial(_is_multiple, k)


def last(share: float, steps: int) -> Gate:
    """The last part of a training of so many steps."""
    first = round((1 - _share(share)) * steps)
    return partial(_is_from, first)


def last_mass(share: float, rates: Sequence[float]) -> Gate:
    """The last steps, with so much of the sum of all learning rates.

    Args:
        share: of the sum, from 0 to 1.
        rates: the learning rate of every step of the training.
    """
    before = (1 - _share(share)) * sum(rates)
    sums = [0.0, *accumulate(rates)]
    first = next((i for i, mass in enumerate(sums) if mass >= before), len(rates))
    return partial(_is_from, first)


def by_chance(probability: float, seed: int = 0) -> Gate:
    """A coin for each step, the same one in all processes and in a resumed run."""
    chance = _share(probability)
    return partial(_shows_heads, chance, seed)


def _is_multiple(k: int, step: Step) -> bool:
    return step.index % k == 0


def _is_from(first: int, step: Step) -> bool:
    return step.index >= first


def _shows_heads(chance: float, seed: int, step: Step) -> bool:
    return random.Random(f"{seed} {step.index}").random() < chance


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"a share is between 0 and 1, got {value}.")
    return value

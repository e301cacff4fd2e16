"""Gates: in which steps do we climb?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from itertools import accumulate

from flatmin.core import _checks as checks
from flatmin.core._joints import Gate
from flatmin.core._program import Step


def every(k: int) -> Gate:
    """Every k-th step, the first included."""
    checks.at_least("k", k, 1)
    return partial(_is_multiple, k)


def last(share: float, steps: int) -> Gate:
    """The last part of a training of so many steps."""
    first = round((1 - checks.share("share", share)) * steps)
    return partial(_is_from, first)


def last_mass(share: float, rates: Sequence[float]) -> Gate:
    """The last steps, with so much of the sum of all learning rates.

    Args:
        share: of the sum, from 0 to 1.
        rates: the learning rate of every step of the training.
    """
    before = (1 - checks.share("share", share)) * sum(rates)
    sums = [0.0, *accumulate(rates)]
    first = next((i for i, mass in enumerate(sums) if mass >= before), len(rates))
    return partial(_is_from, first)


def by_chance(probability: float, seed: int = 0) -> Gate:
    """A coin for each step, the same one in all processes and in a resumed run."""
    chance = checks.share("probability", probability)
    return partial(_shows_heads, chance, seed)


def _is_multiple(k: int, step: Step) -> bool:
    return step.index % k == 0


def _is_from(first: int, step: Step) -> bool:
    return step.index >= first


def _shows_heads(chance: float, seed: int, step: Step) -> bool:
    return random.Random(f"{seed} {step.index}").random() < chance

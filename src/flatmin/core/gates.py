"""Gates: in which steps do we climb?"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from flatmin.core import _checks as checks
from flatmin.core._joints import Gate
from flatmin.core._program import Step

#: A known value, for the messages.
_LATE = "the paper has 0.125"

#: Below this share of its largest value a learning rate counts as decayed; our choice.
_SPENT = 0.1


def every(k: int) -> Gate:
    """Every k-th step, the first included."""
    return partial(_is_multiple, checks.integer("k", k, 1, "Composer's README has 10"))


def last(share: float, steps: int) -> Gate:
    """The last part of a training of so many steps.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or the part is shorter than a step.
    """
    return _From(first_of_last(share, steps))


def first_of_last(share: float, steps: int) -> int:
    """The first step of the last part of a training.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or the part is shorter than a step.
    """
    checks.inside("share", share, "(0, 1]", _LATE)
    checks.integer("steps", steps, 1, "they are those of the whole training")
    return _within(round((1 - share) * steps), share, steps)


def last_mass(share: float, rates: Sequence[float]) -> Gate:
    """The last steps, which have this share of the sum of all learning rates.

    Args:
        share: of the sum, from 0 to 1.
        rates: the learning rate of every step of the training.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or the part is shorter than a step.
    """
    checks.inside("share", share, "(0, 1]", _LATE)
    for i, rate in enumerate(rates):
        checks.inside(f"rates[{i}]", rate, "[0, inf)")
    sums = [0.0, *accumulate(rates)]
    # Sums of n numbers are rounded n times: equal masses may differ by so much.
    rounding = len(rates) * sys.float_info.epsilon * sums[-1]
    before = (1 - share) * sums[-1] - rounding
    first = next(i for i, mass in enumerate(sums) if mass >= before)
    return _From(_within(first, share, len(rates)))


def by_chance(probability: float, seed: int = 0) -> Gate:
    """A coin for each step, the same one in all processes and in a resumed run."""
    checks.inside("probability", probability, "(0, 1]", "SS-SAM's default is 0.5")
    return partial(_shows_heads, probability, seed)


def never(step: Step) -> bool:
    """No step climbs: for methods that do something other than climb."""
    del step
    return False


def _within(first: int, share: float, steps: int) -> int:
    if first >= steps:
        raise ValueError(
            f"share {share} of {steps} steps is less than a step, so none would climb. "
            "Give a larger share, or steps of the whole training."
        )
    return first


def _is_multiple(k: int, step: Step) -> bool:
    return step.index % k == 0


class _From:
    """From a step on; warns if the learning rate has nearly decayed by then."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._highest: float | Tensor = 0.0

    def __call__(self, step: Step) -> bool:
        if step.index < self._first:
            self._note(step)
        elif step.index == self._first > 0:
            self._check_rate(step)
        return step.index >= self._first

    def _note(self, step: Step) -> None:
        """Keep the largest rate since the first step, or since the training resumed."""
        rate = step.groups[0].get("lr", 1.0)
        before = 0.0 if step.index == 0 else self._highest
        if isinstance(rate, Tensor):
            # Not read here, because a read waits for the device.
            self._highest = torch.maximum(torch.as_tensor(before).to(rate), rate)
        else:
            self._highest = max(float(before), float(rate))

    def _check_rate(self, step: Step) -> None:
        group = step.groups[0]
        rate = float(group.get("lr", 1.0))
        # After a resume, a schedule's first rate is all that is known of earlier ones.
        start = max(float(group.get("initial_lr", 0.0)), float(self._highest))
        if rate < _SPENT * start:
            warnings.warn(
                f"SAM begins in step {step.index}, where the learning rate is "
                f"{rate:g}, {rate / start:.0%} of what it was: too little to move to a "
                "flatter minimum. Begin earlier (a larger share), take "
                "gates.last_mass, or let the rate fall in this part alone: "
                "flatmin.schedules.late_cosine(steps).",
                UserWarning,
                stacklevel=2,
            )


def _shows_heads(chance: float, seed: int, step: Step) -> bool:
    return random.Random(f"{seed} {step.index}").random() < chance

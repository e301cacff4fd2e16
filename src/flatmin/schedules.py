"""Learning rates that decay in the last part of a training, where late methods climb.

Each returns a factor per step for `torch.optim.lr_scheduler.LambdaLR`, stepped after
every step of the optimizer::

    rate = flatmin.schedules.late_cosine(steps, share=0.4, warmup=100)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from flatmin.core import gates
from flatmin.core._checks import integer

__all__ = ["late_cosine", "late_linear"]


def late_linear(
    steps: int, *, share: float = 0.4, warmup: int = 0
) -> Callable[[int], float]:
    """Warm-up, stable, decay: linear to 0 over the last part of the training.

    Example:
        >>> import flatmin
        >>> rate = flatmin.schedules.late_linear(10, share=0.4, warmup=2)
        >>> [rate(k) for k in range(10)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]

    Args:
        steps: of the whole training.
        share: the part of it in which the rate falls; 0.4 is that of
            `flatmin.late_subset_sam`.
        warmup: in how many steps the rate rises to 1.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or the warm-up reaches into the decay.

    Reference: Hu et al. MiniCPM. 2024, arXiv:2404.06395, has the name (WSD).
    """
    first = _first(steps, share, warmup)
    return partial(_rate, warmup, first, steps, _line)


def late_cosine(
    steps: int, *, share: float = 0.4, warmup: int = 0
) -> Callable[[int], float]:
    """As `late_linear`, along half a cosine.

    Example:
        >>> import flatmin
        >>> rate = flatmin.schedules.late_cosine(8, share=0.5)
        >>> [round(rate(k), 3) for k in range(8)]
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.854, 0.5, 0.146]

    Args:
        steps: of the whole training.
        share: the part of it in which the rate falls.
        warmup: in how many steps the rate rises to 1.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or the warm-up reaches into the decay.
    """
    first = _first(steps, share, warmup)
    return partial(_rate, warmup, first, steps, _half_cosine)


def _first(steps: int, share: float, warmup: int) -> int:
    first = gates.first_of_last(share, steps)
    if integer("warmup", warmup, 0, "0 is the default") > first:
        raise ValueError(
            f"warmup={warmup} reaches into the decay, which begins in step {first} of "
            f"{steps}. Give a shorter warm-up or a smaller share."
        )
    return first


def _rate(
    warmup: int, first: int, steps: int, fall: Callable[[float], float], k: int
) -> float:
    if k < warmup:
        return (k + 1) / warmup
    return fall(min(max(k - first, 0) / (steps - first), 1.0))


def _line(done: float) -> float:
    return 1 - done


def _half_cosine(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2

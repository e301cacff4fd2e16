"""Student's intervals over seeds: of a mean, and of the difference of two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student

#: The probability that an interval covers.
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Paired:
    """How much higher the first of two paired series is than the second.

    Attributes:
        mean: of the differences, first minus second.
        half: half the width of their 95 % interval; None for one pair.
        n: pairs, which are the seeds that both were run with.
    """

    mean: float
    half: float | None
    n: int

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0; False for one pair, which has none."""
        return self.half is not None and abs(self.mean) > self.half


def mean(values: Sequence[float]) -> float:
    """The mean; NaN if there is no value."""
    return sum(values) / len(values) if values else math.nan


def interval(values: Sequence[float]) -> float | None:
    """Half the width of Student's 95 % interval of the mean; None for one value.

    Example:
        >>> round(interval([1.0, 2.0, 3.0]), 3)
        2.484
    """
    n, middle = len(values), mean(values)
    if n < 2:
        return None
    deviation = math.sqrt(sum((x - middle) ** 2 for x in values) / (n - 1))
    return float(student.ppf((1 + _LEVEL) / 2, n - 1)) * deviation / math.sqrt(n)


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """The differences of two series, seed by seed.

    Args:
        a: one value for each seed.
        b: values for the same seeds, in the same order.

    Raises:
        ValueError: the two differ in length, or are empty.

    Example:
        >>> paired([12.0, 14.0, 16.0], [11.0, 13.0, 15.0])
        Paired(mean=1.0, half=0.0, n=3)
    """
    if len(a) != len(b) or not a:
        raise ValueError(
            f"paired needs one value per seed in both, got {len(a)} and {len(b)}."
        )
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return Paired(mean(differences), interval(differences), len(differences))

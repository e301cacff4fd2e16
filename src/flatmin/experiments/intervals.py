"""Student's intervals over seeds, and the best of several candidates."""

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


@dataclass(frozen=True, slots=True)
class Best:
    """The candidate with the lowest mean error.

    Attributes:
        index: its place among the candidates.
        tied: the places of the others that the seeds cannot tell from it.
        seeds: how many seeds each candidate has.
    """

    index: int
    tied: tuple[int, ...]
    seeds: int

    @property
    def ties(self) -> int:
        """How many others the seeds do not tell from the best."""
        return len(self.tied)


def best(errors: Sequence[Sequence[float]]) -> Best:
    """Choose the candidate with the lowest mean error; of equal ones, the first.

    Another candidate is tied with it if the mean errors are equal, or if the 95 %
    interval of the paired differences includes 0. A single seed gives no interval, so
    that only equal errors are tied. A mean that is not finite is the highest.

    Args:
        errors: of each candidate, one for each seed, the seeds in the same order.

    Raises:
        ValueError: there is no candidate, no seed, or a seed is missing.

    Example:
        >>> best([(10.0, 12.0), (9.0, 12.0), (19.0, 22.1)])
        Best(index=1, tied=(0,), seeds=2)
    """
    if not errors or not errors[0] or any(len(x) != len(errors[0]) for x in errors):
        raise ValueError(
            "best needs candidates with one error per seed, got "
            f"{[len(x) for x in errors]} errors."
        )
    means = [x if math.isfinite(x) else math.inf for x in map(mean, errors)]
    first = means.index(min(means))
    tied = tuple(
        k
        for k, one in enumerate(errors)
        if k != first and (means[k] == means[first] or _close(one, errors[first]))
    )
    return Best(first, tied, len(errors[0]))


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the interval of the differences includes 0."""
    found = paired(one, other)
    return found.half is not None and abs(found.mean) <= found.half

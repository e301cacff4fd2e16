"""The best of several candidates by their errors over seeds, and its ties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flatmin.experiments.intervals import mean, paired


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

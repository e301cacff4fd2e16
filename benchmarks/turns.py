"""Timings that can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def in_turns(
    runs: Sequence[Callable[[], object]], turns: int, warm: int
) -> list[list[float]]:
    """Seconds of each turn of each, which see the same machine.

    Of the first ``warm`` turns, which come on top, no time is taken.
    """
    times: list[list[float]] = [[] for _ in runs]
    for k in range(turns + warm):
        for run, seen in zip(runs, times, strict=True):
            began = time.perf_counter()
            run()
            if k >= warm:
                seen.append(time.perf_counter() - began)
    return times

"""Timings that can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def in_turns(
    runs: Sequence[Callable[[], object]], turns: int, warm: int
) -> list[list[float]]:
    """Seconds of each turn of each, which see the same machine.

    Every other turn goes through them backwards, so that none always comes after the
    same. Of the first ``warm`` turns, which come on top, no time is taken.
    """
    times: list[list[float]] = [[] for _ in runs]
    pairs = list(zip(runs, times, strict=True))
    for k in range(turns + warm):
        for run, seen in pairs[:: 1 - 2 * (k % 2)]:
            began = time.perf_counter()
            run()
            if k >= warm:
                seen.append(time.perf_counter() - began)
    return times

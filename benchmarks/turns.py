"""Timings that can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def in_turns(
    runs: Sequence[Callable[[], object]], turns: int, warm: int
) -> list[list[float]]:
    """Time runs in turn, so that all see the same machine; return seconds per turn.

    Every other turn goes backwards, so that no run always comes after the same other.
    ``warm`` turns, which are not timed, come first.
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

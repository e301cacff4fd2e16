"""The examples of a pass: all of a batch, or a part of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from torch import Tensor

from flatmin.core._checks import inside

#: Which of ``n`` examples a pass needs: an index for the first axis, or None for all.
Batch: TypeAlias = Callable[[int], slice | Tensor | None]


def all_examples(n: int) -> None:
    """Every example: the ascent sees what the descent sees."""
    del n


def fraction(share: float) -> Batch:
    """Select the first ``share`` of the batch, at least one example."""
    if inside("share", share, "(0, 1]", "0.25 is a quarter") == 1:
        return all_examples
    return partial(_first, share)


def remainder(share: float) -> Batch:
    """Select the examples that `fraction` leaves; ValueError if it leaves none."""
    return partial(_after, inside("share", share, "(0, 1)", "0.5 is the other half"))


def highest(values: Tensor, share: float) -> Batch:
    """Select the ``share`` of the batch with the highest values, at least one example.

    Args:
        values: one for each example.
        share: of the batch.
    """
    if inside("share", share, "(0, 1]") == 1:
        return all_examples
    best = values.topk(max(1, round(share * len(values)))).indices
    return partial(_these, best.sort().values, len(values))


def _first(share: float, n: int) -> slice:
    return slice(0, max(1, round(share * n)))


def _after(share: float, n: int) -> slice:
    first = _first(share, n).stop
    if first >= n:
        raise ValueError(
            f"this method splits each batch, and {n} example leaves nothing for the "
            "second pass. Give probe.take() at least 2."
        )
    return slice(first, n)


def _these(index: Tensor, among: int, n: int) -> Tensor:
    if n != among:
        raise ValueError(
            f"this pass needs examples that were chosen among {among}, got {n}. Give "
            "probe.take() the same batch in every pass of a step."
        )
    return index

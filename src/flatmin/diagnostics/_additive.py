"""Refuse a loss that is not the mean over the examples.

The value of such a loss depends on how the data is cut into batches. Contrastive losses
are of this kind. So are means over targets that are not ignored, or with class weights,
if the criterion returns only the mean. The check runs on the data: it calls the
criterion again, but not the model.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from flatmin.diagnostics import _trees as trees
from flatmin.diagnostics._criterion import BatchLoss, Measure

#: How much a sum may be off by rounding: relative, and per example.
_RELATIVE, _PER_EXAMPLE = 1e-5, 1e-7

_INSTEAD = (
    "Return one loss per example (reduction='none'), or a pair: the sum of the losses, "
    "and the number that their mean divides by."
)

#: Outputs and targets.
_Pair = tuple[Any, Any]


class Additive:
    """Checks one batch after another.

    Args:
        measure: gives the losses of outputs and targets.
    """

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._before: tuple[_Pair, BatchLoss] | None = None
        self._at = -1

    def see(self, outputs: Any, targets: Any, loss: BatchLoss) -> None:
        """Check the next batch.

        Raises:
            ValueError: sums or divisors of its parts do not add up to its own, or its
                own and those of the last batch do not add up to those of both joined;
                or the criterion gave only a mean, and the batch cannot be cut or joined
                to check it.
        """
        self._at += 1
        if loss.examples == 0:
            return
        if not _has_axis(outputs, loss.examples):
            self._trust(loss, "the outputs have no axis of examples")
            return
        self._see_parts((outputs, targets), loss)
        if self._before is not None:
            self._see_joined(*self._before, (outputs, targets), loss)
        self._before = (outputs, targets), loss

    def _see_parts(self, pair: _Pair, whole: BatchLoss) -> None:
        """Cut behind the first example, and in the middle of the others."""
        n = whole.examples
        ends = sorted({0, 1, 1 + n // 2, n} & set(range(n + 1)))
        cuts = [slice(a, b) for a, b in pairwise(ends)]
        parts = [self._measure(*_cut(pair, n, cut)) for cut in cuts]
        _compare(parts, whole, f"batch {self._at}")

    def _see_joined(
        self, before: _Pair, loss_before: BatchLoss, pair: _Pair, loss: BatchLoss
    ) -> None:
        joined = _joined(before, pair, (loss_before.examples, loss.examples))
        where = f"batches {self._at - 1} and {self._at}"
        if joined is None:
            self._trust(loss, f"{where} differ in shape")
            return
        _compare([loss_before, loss], self._measure(*joined), f"{where}, joined,")

    @staticmethod
    def _trust(loss: BatchLoss, because: str) -> None:
        if loss.bare:
            raise ValueError(
                f"what the criterion's mean divides by cannot be known: {because}. "
                f"{_INSTEAD}"
            )


def _compare(parts: list[BatchLoss], whole: BatchLoss, where: str) -> None:
    totals = torch.stack([part.total for part in parts])
    divisors = torch.stack([part.divisor for part in parts])
    rounding = _RELATIVE * totals.abs().sum() + _PER_EXAMPLE * whole.examples
    summed = (totals.sum() - whole.total).abs() <= rounding
    off = (divisors.sum() - whole.divisor).abs()
    counted = off <= _RELATIVE * whole.divisor.abs()
    # A loss that is not finite is refused elsewhere.
    if whole.total.isfinite() and not (summed and counted):
        raise ValueError(
            f"the loss is not the mean over the examples: {where} should have "
            f"{float(totals.sum()):.6g} / {float(divisors.sum()):.6g}, the sums of the "
            f"parts, and has {float(whole.total):.6g} / {float(whole.divisor):.6g}. "
            f"Its value would depend on the batches. {_INSTEAD}"
        )


def _has_axis(outputs: Any, n: int) -> bool:
    return any(_per_example(x, n) for x in trees.tensors(outputs))


def _per_example(x: object, n: int) -> bool:
    return isinstance(x, Tensor) and x.dim() > 0 and len(x) == n


def _cut(pair: _Pair, n: int, at: slice) -> _Pair:
    """Return outputs and targets of some of the ``n`` examples."""

    def cut(x: Any) -> Any:
        return x[at] if _per_example(x, n) else x

    return trees.mapped(cut, pair)


def _joined(one: _Pair, other: _Pair, sizes: tuple[int, int]) -> _Pair | None:
    """Join two batches; None if they differ in more than the number of examples."""
    xs, shape = trees.flatten(one)
    ys, other_shape = trees.flatten(other)
    if shape != other_shape:
        return None
    leaves = list(zip(xs, ys, strict=True))
    rows = [_per_example(x, sizes[0]) and _per_example(y, sizes[1]) for x, y in leaves]
    pairs = list(zip(leaves, rows, strict=True))
    if any(row and x.shape[1:] != y.shape[1:] for (x, y), row in pairs):
        return None
    joined = [torch.cat([x, y]) if row else x for (x, y), row in pairs]
    return trees.unflatten(joined, shape)

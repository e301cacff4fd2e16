"""The weights' way to ``w + eps`` and back, bit for bit and in place."""

from __future__ import annotations

import torch
from torch import Tensor

from flatmin.core import Gradients
from flatmin.core import _tensors as ts
from flatmin.core._shards import local
from flatmin.optim._replay import alike


class Weights:
    """Moves parameters and brings them back from a copy, which is allocated once.

    A copy, because ``(w + eps) - eps`` is not ``w`` in floating point; in place,
    because CUDA graphs, shared memory and sharded parameters hold on to the storage.
    Of sharded parameters, each process moves its part.

    A bfloat16 weight is further from its neighbour than most entries of ``eps`` are
    long. Rounding to the nearest would leave most weights where they are, and always
    the same ones; rounding by chance keeps the perturbation right on average.
    """

    def __init__(self) -> None:
        self._moved: list[Tensor] = []
        self._copies: list[Tensor] = []

    @torch.no_grad()
    def move(self, w: list[Tensor], eps: Gradients, seed: int) -> None:
        """``w <- w + eps`` where eps is not None; empties ``eps``.

        Args:
            w: the parameters.
            eps: where to, in their order.
            seed: of the rounding of weights narrower than float32.
        """
        pairs = [(p, e) for p, e in zip(w, eps, strict=True) if e is not None]
        eps.clear()
        if not pairs:
            return
        moved = local([p for p, _ in pairs])
        if not alike(self._copies, moved):
            self._copies = [torch.empty_like(p) for p in moved]
        ts.copy_(self._copies, moved)
        self._moved = moved
        _add_(moved, [e for _, e in pairs], seed)
        # An autocast region around the whole loop keeps its casts of the weights.
        torch.clear_autocast_cache()

    @torch.no_grad()
    def restore(self) -> None:
        """``w`` again, for every parameter that was moved, whatever its gradient."""
        if self._moved:
            ts.copy_(self._moved, self._copies)
            self._moved = []
            torch.clear_autocast_cache()


def _add_(ws: list[Tensor], xs: list[Tensor], seed: int) -> None:
    pairs = [(w, x) for w, x in zip(ws, xs, strict=True) if w.dtype.itemsize >= 4]
    if pairs:
        ts.add_([w for w, _ in pairs], [x for _, x in pairs])
    for i, (w, x) in enumerate(zip(ws, xs, strict=True)):
        if w.dtype.itemsize < 4:
            # A seed for each, because processes hold parts of different sizes.
            ts.add_by_chance_(w, x, seed * 1_000_003 + i)

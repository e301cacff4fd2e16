"""Moves the weights to ``w + eps`` and back, bit for bit and in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flatmin.core import _tensors as ts
from flatmin.core._away import come_back, leave
from flatmin.core._draws import ROUNDING, seed_of
from flatmin.core._multiple import Entries, add_, entries, pick
from flatmin.core._program import Frozen
from flatmin.core._rounding import add_by_chance_
from flatmin.core._shards import all_plain, local
from flatmin.optim._replay import RandomReplay
from flatmin.optim._tensor_copy import (
    Look,
    Mark,
    alike,
    is_whole,
    mark,
    parts_of_all,
)


class Weights:
    """Moves parameters and brings them back from a copy, which is allocated once.

    A copy, because ``(w + eps) - eps`` is not ``w`` in floating point; in place,
    because CUDA graphs, shared memory and sharded parameters hold on to the storage.
    Of sharded parameters, each process moves its part.

    Neighbouring bfloat16 numbers are further apart than most entries of ``eps`` are
    large. Rounding to the nearest would leave most weights where they are, and always
    the same ones; rounding by chance keeps the perturbation right on average.

    Attributes:
        watch: whether to note which of the moved weights change before they return.
        look: whether to compare values, too: writing to ``.data`` leaves no trace.
        away: the parameters that were moved last.
        touched: those of them that changed meanwhile, if ``watch`` was set.
    """

    def __init__(self) -> None:
        self.watch = self.look = False
        self.away: list[Tensor] = []
        self.touched: list[Tensor] = []
        self._moved: list[Tensor] = []
        self._held: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._marks: list[Mark] = []
        self._looked: Look | None = None

    @property
    def moved(self) -> bool:
        """Whether some weights are away from ``w``."""
        return bool(self._moved)

    @torch.no_grad()
    def move(
        self, w: list[Tensor], eps: Entries, seed: int, frozen: Frozen = ()
    ) -> None:
        """``w <- w + eps`` where eps is not None; keeps no reference to eps.

        Args:
            w: the parameters.
            eps: how far each moves, in their order.
            seed: of the rounding of weights narrower than float32.
            frozen: tensors beside the parameters, and how far they move.
        """
        at = [i for i, e in enumerate(entries(eps)) if e is not None]
        away = [*(w[i] for i in at), *(p for p, _ in frozen)]
        if not away:
            return
        self.away = away
        leave(self)
        moved = local(self.away)
        self._moved, self._held = moved, parts_of_all(moved)
        if not alike(self._copies, self._held):
            self._copies = [torch.empty_like(part) for part in self._held]
        ts.copy_(self._copies, self._held)
        _add_(moved[: len(at)], pick(eps, at), seed, 0)
        _add_(moved[len(at) :], [e for _, e in frozen], seed, len(at))
        self._marks = [mark(p) for p in moved] if self.watch else []
        self._looked = Look(moved) if self.watch and self.look else None
        # An autocast region around the whole loop would reuse its casts of the weights.
        torch.clear_autocast_cache()

    @torch.no_grad()
    def restore(self) -> None:
        """Restore ``w`` for every parameter that was moved, whatever its gradient."""
        if self._moved:
            rows = zip(self.away, self._moved, self._marks, strict=False)
            self.touched = [p for p, x, then in rows if mark(x) != then]
            if self._looked is not None:
                self.touched += self._written(self._looked)
                self._looked = None
            ts.copy_(self._held, self._copies)
            self._moved, self._held = [], []
            come_back(self)
            torch.clear_autocast_cache()

    def _written(self, looked: Look) -> list[Tensor]:
        """Return the moved parameters whose values have changed."""
        changed = set(map(id, looked.changed()))
        pairs = zip(self.away, self._moved, strict=True)
        return [p for p, x in pairs if id(x) in changed]


def _add_(ws: list[Tensor], eps: Entries, seed: int, first: int) -> None:
    """``w <- w + eps``; ``first`` is the number of the first pair."""
    if ws and all_plain(ws) and min(d.itemsize for d in {w.dtype for w in ws}) >= 4:
        add_(ws, eps)
        return
    whole = [i for i, w in enumerate(ws) if is_whole(w)]
    plain = [i for i in whole if ws[i].dtype.itemsize >= 4]
    if plain:
        add_([ws[i] for i in plain], pick(eps, plain))
    if narrow := [i for i in whole if ws[i].dtype.itemsize < 4]:
        numbers = [first + i for i in narrow]
        some, own = [ws[i] for i in narrow], seed_of(seed, ROUNDING, 0)
        add_by_chance_(some, pick(eps, narrow), own, numbers)
    for i in sorted(set(range(len(ws))) - set(whole)):
        x = eps[i]
        assert x is not None
        _add_requantized_(ws[i], x, seed_of(seed, ROUNDING, first + i))


def _add_requantized_(w: Any, x: Tensor, seed: int) -> None:
    """``w <- w + x`` as a subclass of Tensor adds, which may draw random numbers.

    torchao's integers are rounded by chance, for the reason that narrow floats are.
    """
    streams = RandomReplay()
    streams.begin([w], [])
    streams.seed(seed)
    try:
        w.add_(x)
    finally:
        streams.rewind()

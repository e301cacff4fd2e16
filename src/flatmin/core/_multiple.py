"""A perturbation that is a multiple of the gradient, and takes no memory of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, overload

from torch import Tensor

from flatmin.core import _tensors as ts

#: An entry per parameter, read-only; None: this parameter stays where it is.
Entries: TypeAlias = Sequence[Tensor | None]


@dataclass(frozen=True, slots=True, eq=False)
class Multiple(Sequence["Tensor | None"]):
    """``c v`` where ``ok``, else zero; an entry is computed when it is read.

    The engine moves weights along it without ever holding all of it.

    Attributes:
        v: the tensors that are multiplied. They must not change while this is in use.
        c: the factor, 0-dim.
        ok: 0-dim bool.
    """

    v: Entries
    c: Tensor
    ok: Tensor

    def __len__(self) -> int:
        return len(self.v)

    def __iter__(self) -> Iterator[Tensor | None]:
        found = iter(self._computed([x for x in self.v if x is not None]))
        return (x if x is None else next(found) for x in self.v)

    @overload
    def __getitem__(self, i: int) -> Tensor | None: ...
    @overload
    def __getitem__(self, i: slice) -> Entries: ...
    def __getitem__(self, i: int | slice) -> Tensor | Entries | None:
        if isinstance(i, slice):
            return Multiple(self.v[i], self.c, self.ok)
        x = self.v[i]
        return x if x is None else self._computed([x])[0]

    def of(self, v: Entries) -> Multiple:
        """Return the same multiple of other tensors."""
        return Multiple(v, self.c, self.ok)

    def _computed(self, xs: list[Tensor]) -> list[Tensor]:
        if not xs:
            return []
        products = ts.times(xs, self.c)
        ts.zero_unless_(products, self.ok)
        return products


def entries(eps: Entries) -> Entries:
    """Return entries that are None where those of ``eps`` are, computing nothing."""
    return eps.v if isinstance(eps, Multiple) else eps


def pick(eps: Entries, at: list[int]) -> Entries:
    """Return the entries at these positions, which are in ascending order."""
    if len(at) == len(eps):
        return eps
    if isinstance(eps, Multiple):
        return eps.of(pick(eps.v, at))
    return [eps[i] for i in at]


def spread(eps: Entries, at: list[int], n: int) -> Entries:
    """Place the entries at these positions of ``n``, with None at all others."""
    if isinstance(eps, Multiple):
        return eps.of(spread(eps.v, at, n))
    result: list[Tensor | None] = [None] * n
    for i, e in zip(at, eps, strict=True):
        result[i] = e
    return tuple(result)


def scaled(eps: Entries, by: Sequence[Tensor]) -> Entries:
    """Multiply each entry by its tensor, in float32 at least; no entry is None."""
    if isinstance(eps, Multiple):
        return eps.of(scaled(eps.v, by))
    return ts.products([x for x in eps if x is not None], by)


def add_(ws: Sequence[Tensor], eps: Entries) -> None:
    """``w <- w + eps``, in place; no entry is None."""
    xs = [x for x in entries(eps) if x is not None]
    if isinstance(eps, Multiple):
        ts.add_multiple_(ws, eps.c, xs, eps.ok)
    else:
        ts.add_(ws, xs)

"""Gradients as one vector: sums, inner products and norms over all entries.

An entry of None is zero. Inner products and norms are those of the whole, also where
each process holds a part of every parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flatmin.core import _tensors as ts
from flatmin.core._program import Entries, Gradients
from flatmin.core._shards import Shards


def norm(w: list[Tensor], a: Entries) -> Tensor:
    """``||a||_2``: float64, 0-dim."""
    at = _there(a)
    if not at:
        return torch.zeros((), dtype=torch.float64, device=w[0].device)
    return Shards.of([w[i] for i in at]).norm(ts.wide([_of(a, i) for i in at]))


def dot(w: list[Tensor], a: Entries, b: Entries) -> Tensor:
    """``<a, b>``, of complex entries the real part: float64, 0-dim."""
    at = [i for i in _there(a) if b[i] is not None]
    if not at:
        return torch.zeros((), dtype=torch.float64, device=w[0].device)
    shards = Shards.of([w[i] for i in at])
    return shards.dot([_of(a, i) for i in at], [_of(b, i) for i in at])


def mix(c: Tensor | float, a: Entries, d: Tensor | float, b: Entries) -> Gradients:
    """``c a + d b``; None where both are."""
    mixed: Gradients = []
    for x, y in zip(times(c, a), times(d, b), strict=True):
        mixed.append(y if x is None else x if y is None else x + y)
    return mixed


def times(c: Tensor | float, a: Entries) -> Gradients:
    """``c a``."""
    if not isinstance(c, Tensor):
        return [x if x is None or c == 1.0 else c * x for x in a]
    at = [i for i, x in enumerate(a) if x is not None]
    scaled = ts.times([_of(a, i) for i in at], c) if at else []
    result: Gradients = [None] * len(a)
    for i, x in zip(at, scaled, strict=True):
        result[i] = x
    return result


def times_each(cs: Sequence[float], a: Entries) -> Gradients:
    """``c_i a_i``, a factor for every entry."""
    return [x if x is None else c * x for c, x in zip(cs, a, strict=True)]


def wide(a: Entries) -> Gradients:
    """``a`` in float32 at least: a running mean moves by less than bfloat16 tells."""
    return [x if x is None else ts.wide([x])[0] for x in a]


def as_gradients(w: list[Tensor], a: Entries) -> Gradients:
    """``a`` in the dtypes that gradients of ``w`` have to have."""
    pairs = zip(w, a, strict=True)
    return [x if x is None else ts.as_gradient(x, p) for p, x in pairs]


def finite(w: list[Tensor], a: Entries, b: Entries | None) -> Gradients:
    """``a`` if all of it is finite, else ``b``, where None counts as zero."""
    ok = norm(w, a).isfinite()
    other: Entries = [None] * len(a) if b is None else b
    return [
        x if x is None else torch.where(ok.to(x.device), x, 0 if y is None else y)
        for x, y in zip(a, other, strict=True)
    ]


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, and 0 where b is 0."""
    return torch.where(b == 0, 0, a / torch.where(b == 0, 1, b))


def _there(a: Entries) -> list[int]:
    return [i for i, x in enumerate(a) if x is not None and x.numel() > 0]


def _of(a: Entries, i: int) -> Tensor:
    x = a[i]
    assert x is not None
    return x

"""Select the highest entries, ranked over all tensors of a model together."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flatmin.core._program import Gradients, Step
from flatmin.core._shards import Groups, Shards, reduced

#: Bits of a number that one count over all processes settles: 16 KB are sent.
_BITS = 11


def highest(step: Step, values: Gradients, share: float) -> Gradients:
    """Return 1 at the highest of all entries, 0 at the others, None where no value is.

    With sharded parameters each process ranks its parts among those of all. Of equal
    entries at the limit, as many are taken as are missing.

    Args:
        step: whose weights the values belong to.
        values: not negative, an entry per parameter; of sharded ones, the part here.
        share: of the entries that get a 1; at least one entry does.
    """
    there = [i for i, x in enumerate(values) if x is not None]
    xs = [x for x in values if x is not None]
    shards = Shards.of([step.w[i] for i in there])
    count = max(1, int(share * sum(step.w[i].numel() for i in there)))
    ones = _of_whole(xs, count) if shards.whole else _of_parts(shards, xs, count)
    found: Gradients = [None] * len(values)
    for i, x, one in zip(there, xs, ones, strict=True):
        found[i] = one.view_as(x).to(x.device, x.dtype)
    return found


def _of_whole(xs: list[Tensor], count: int) -> list[Tensor]:
    flat = _flat(xs)
    mask = torch.zeros_like(flat).index_fill_(0, flat.topk(count).indices, 1)
    return list(torch.split(mask, [x.numel() for x in xs]))


def _of_parts(shards: Shards, xs: list[Tensor], count: int) -> list[Tensor]:
    """Find the limit by counting, since no process holds all entries."""
    kinds = [(groups, at, keys_of([xs[i] for i in at])) for groups, at in shards.kinds]
    least, missing = limit([(groups, keys) for groups, _, keys in kinds], count)
    ones: dict[int, Tensor] = {}
    for groups, at, keys in kinds:
        equal = keys == least
        ties = _of_each(groups, equal.sum())
        before = sum(ties[: _place(groups)])
        mask = (keys > least) | (equal & (equal.cumsum(0) <= missing - before))
        missing -= min(missing, sum(ties))
        parts = torch.split(mask, [xs[i].numel() for i in at])
        ones.update(zip(at, parts, strict=True))
    return [ones[i] for i in range(len(xs))]


def limit(kinds: list[tuple[Groups, Tensor]], count: int) -> tuple[int, int]:
    """Return the smallest key to take, and how many that are equal to it.

    Each round counts the keys that begin with what is known by their next bits.
    """
    known, missing = 0, count
    for shift in range(64 // _BITS * _BITS, -1, -_BITS):
        counts = sum(_next_bits(*kind, known, shift) for kind in kinds)
        assert isinstance(counts, Tensor)
        above = counts.flip(0).cumsum(0)
        skipped = int((above < missing).sum())
        missing -= int(above[skipped - 1]) if skipped else 0
        known = known << _BITS | (1 << _BITS) - 1 - skipped
    return known, missing


def _next_bits(groups: Groups, keys: Tensor, known: int, shift: int) -> Tensor:
    """Count the keys that begin with ``known`` by what follows, over all processes."""
    bits = (keys >> shift)[keys >> shift >> _BITS == known] & (1 << _BITS) - 1
    return reduced(bits.bincount(minlength=1 << _BITS), groups)


def keys_of(xs: list[Tensor]) -> Tensor:
    """Integers in the order of numbers that are not negative; NaN is the highest."""
    return _flat(xs).double().abs().view(torch.int64)


def _flat(xs: list[Tensor]) -> Tensor:
    return torch.cat([x.reshape(-1).to(xs[0].device) for x in xs])


def _of_each(groups: Groups, n: Tensor) -> list[int]:
    """Return the number of each process that holds a part, in the order of `_place`."""
    counts = n.new_zeros(math.prod(group.size() for group in groups))
    counts[_place(groups)] = n
    return [int(count) for count in reduced(counts, groups)]


def _place(groups: Groups) -> int:
    """Return the place of this process among those that hold a part."""
    place = 0
    for group in groups:
        place = place * group.size() + group.rank()
    return place

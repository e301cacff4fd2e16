"""Tensors of which each process holds a part (DTensor): measures of the whole.

FSDP2, hybrid sharding and tensor parallelism all store parameters as DTensors.
Elementwise functions work on the parts. Measures of all entries are reduced over the
processes that hold the other parts, once per kind of sharding and not per parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flatmin.core import _tensors as ts

#: Types of tensors that hold their values themselves. A look at the type is several
#: times as fast as any other question, of which a step asks a thousand.
PLAIN = frozenset({Tensor, nn.Parameter, nn.Buffer})

#: Process groups that hold the parts of a tensor; none of a whole one.
Groups: TypeAlias = tuple[Any, ...]

#: Measures the tensors at the given positions.
Measure: TypeAlias = Callable[[list[int]], Tensor]


def all_plain(xs: Iterable[object]) -> bool:
    """Whether all are of `PLAIN` types; one call for a list, and no loop in Python."""
    return PLAIN.issuperset(map(type, xs))


def any_sharded(xs: Sequence[object]) -> bool:
    """Whether one of these is a DTensor."""
    return not all_plain(xs) and any(map(is_dtensor, xs))


def is_dtensor(x: object) -> bool:
    """Whether this is a DTensor; importing its class would cost half a second."""
    return type(x) not in PLAIN and hasattr(x, "device_mesh")


def local(xs: Sequence[Tensor]) -> list[Tensor]:
    """This process's part of each, sharing its memory; plain tensors as they are."""
    return list(xs) if all_plain(xs) else [_local(x) for x in xs]


def cut_within(w: Any) -> bool:
    """Whether ``w`` is cut along another axis than its first."""
    cuts = w.placements if is_dtensor(w) else ()
    return any(getattr(cut, "dim", 0) != 0 for cut in cuts)


def share_of(x: Tensor, w: Any) -> Tensor:
    """This process's part of a whole ``x``, cut as ``w`` is cut."""
    if not is_dtensor(w):
        return x
    # Imported here: w has loaded this already, without DTensors it takes half a second.
    from torch.distributed.tensor import Replicate

    everywhere = [Replicate()] * w.device_mesh.ndim
    whole: Any = w.__class__.from_local(x, w.device_mesh, everywhere, run_check=False)
    return whole.redistribute(w.device_mesh, w.placements).to_local()


def placed_as(g: Any, w: Any) -> Tensor:
    """Return ``g``, cut as ``w`` is cut."""
    if not is_dtensor(g) or g.placements == w.placements:
        return g
    return g.redistribute(w.device_mesh, w.placements)


def local_as(gs: Sequence[Tensor], ws: Sequence[Tensor]) -> list[Tensor]:
    """This process's part of each ``g``, cut as its ``w`` is cut."""
    if all_plain(gs):
        return list(gs)
    return [_local(placed_as(g, w)) for g, w in zip(gs, ws, strict=True)]


def whole_as(x: Tensor, w: Any) -> Tensor:
    """The tensor of which ``x`` is this process's part, cut as ``w`` is cut."""
    if not is_dtensor(w):
        return x
    cut = {"shape": w.shape, "stride": w.stride(), "run_check": False}
    return w.__class__.from_local(x, w.device_mesh, w.placements, **cut)


@dataclass(frozen=True, slots=True)
class Shards:
    """How a list of tensors is cut.

    Attributes:
        kinds: for each kind of cut, the process groups that hold the other parts, and
            the positions of the tensors cut so.
    """

    kinds: list[tuple[Groups, list[int]]]

    @classmethod
    def of(cls, ws: Sequence[Tensor]) -> Shards:
        """How parameters are cut; alike on every process, and in the same order."""
        if ws and all_plain(ws):
            return cls([((), [*range(len(ws))])])
        kinds: dict[Groups, list[int]] = {}
        for i, w in enumerate(ws):
            kinds.setdefault(_holders(w), []).append(i)
        return cls(list(kinds.items()))

    def norm(self, xs: Sequence[Tensor]) -> Tensor:
        """``||x||_2`` over all entries of all processes; ``xs`` are the parts here."""
        if self.whole:
            return ts.norm(xs)
        return self._sum(xs, lambda at: ts.norm([xs[i] for i in at]).square()).sqrt()

    def dot(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
        """``<x, y>`` over all entries of all processes."""
        if self.whole:
            return ts.dot(xs, ys)
        return self._sum(
            xs, lambda at: ts.dot([xs[i] for i in at], [ys[i] for i in at])
        )

    def largest(self, xs: Sequence[Tensor]) -> Tensor:
        """``max |x|`` over all entries of all processes."""
        if self.whole:
            return ts.largest(xs)
        parts = self._each(
            xs, lambda at: ts.largest([xs[i] for i in at]), dist.ReduceOp.MAX
        )
        return torch.stack(parts).amax()

    def power_total(self, xs: Sequence[Tensor], s: Tensor, q: float) -> Tensor:
        """``sum |x / s|^q`` over all entries of all processes."""
        if self.whole:
            return ts.power_total(xs, s, q)
        return self._sum(xs, lambda at: ts.power_total([xs[i] for i in at], s, q))

    @property
    def whole(self) -> bool:
        """Whether no tensor is cut."""
        return all(not groups for groups, _ in self.kinds)

    def _sum(self, xs: Sequence[Tensor], measure: Measure) -> Tensor:
        return torch.stack(self._each(xs, measure, dist.ReduceOp.SUM)).sum()

    def _each(self, xs: Sequence[Tensor], measure: Measure, op: Any) -> list[Tensor]:
        """The measure of each kind of cut, over all processes that hold a part."""
        values: list[Tensor] = []
        for groups, at in self.kinds:
            # A process that holds no entry must still take part in the reduction.
            here = [i for i in at if xs[i].numel() > 0]
            nothing = torch.zeros((), dtype=torch.float64, device=xs[at[0]].device)
            value = measure(here) if here else nothing
            values.append(reduced(value, groups, op).to(xs[0].device))
        return values


def any_is(ask: Callable[[Tensor], Tensor], xs: Sequence[Tensor]) -> bool:
    """Whether one of the tensors is so, with all parts that other processes hold.

    The host looks at values. All holders get the same answer, or one would go on and
    another stop.

    Args:
        ask: whether a tensor, or a part of one, is so: 0-dim.
        xs: the tensors; all holders give as many, in the same order.
    """
    if all_plain(xs):
        return any(bool(ask(x)) for x in xs)
    found = False
    for groups, at in Shards.of(xs).kinds:
        here = any(bool(ask(_local(xs[i]))) for i in at)
        flag = torch.tensor(float(here), device=xs[at[0]].device)
        found |= bool(reduced(flag, groups, dist.ReduceOp.MAX))
    return found


def reduced(x: Tensor, groups: Groups, op: Any = None) -> Tensor:
    """Reduce ``x`` in place over the holders of a tensor's parts, by default a sum."""
    # Not a default argument: torch may be built without distribution.
    op = dist.ReduceOp.SUM if op is None else op
    for group in groups:
        dist.all_reduce(x, op, group)
    return x


def _local(x: Any) -> Tensor:
    return x.to_local() if is_dtensor(x) else x


def _holders(w: Any) -> Groups:
    """The process groups among which ``w`` is cut."""
    if not is_dtensor(w):
        return ()
    return tuple(
        w.device_mesh.get_group(axis)
        for axis, placement in enumerate(w.placements)
        # Not is_shard(): FSDP2 on top of tensor parallelism cuts in strides.
        if not placement.is_replicate()
    )

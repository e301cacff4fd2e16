"""Data that is read once, kept, and cut into batches of another size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from flatmin.diagnostics import _trees as trees
from flatmin.diagnostics._objective import Objective


def kept(objective: Objective, memory: int) -> list[Any] | None:
    """This process's batches, on the device; None if they exceed ``memory`` bytes."""
    batches: list[Any] = []
    size = 0
    for batch in objective.batches():
        size += sum(x.nbytes for x in trees.tensors(batch))
        if size > memory:
            return None
        batches.append(batch)
    return batches


def cut(batches: Sequence[Any], size: int) -> list[Any]:
    """The same examples in batches of ``size``; the same batches if uncuttable.

    Batches can be cut if they consist of tensors only, which have the examples along
    their first axis and are alike in all other axes.
    """
    leaves: Any
    leaves, shapes = zip(*map(trees.flatten, batches), strict=True)
    kinds = [[_kind(x) for x in one] for one in leaves]
    alike = all(kind == kinds[0] for kind in kinds) and None not in kinds[0]
    if not alike or any(shape != shapes[0] for shape in shapes):
        return list(batches)
    if any(len({len(x) for x in one}) != 1 for one in leaves):
        return list(batches)
    whole: list[Any] = [torch.cat(xs) for xs in zip(*leaves, strict=True)]
    parts: Any = [x.split(size) for x in whole]
    return [trees.unflatten(one, shapes[0]) for one in zip(*parts, strict=True)]


def channels_last(batches: Sequence[Any]) -> list[Any]:
    """The same batches, images with their channels side by side in memory."""
    return [trees.mapped(_channels_last, batch) for batch in batches]


@torch.no_grad()
def largest(objective: Objective, batch: Any) -> tuple[int, int]:
    """Bytes of the largest tensor that a pass over a batch makes, and its examples."""
    fixed = [*objective.model.parameters(), *objective.model.buffers()]
    with _Largest({x.untyped_storage().data_ptr() for x in fixed}) as seen:
        loss = objective.loss_of(batch)
    return seen.bytes, loss.examples


class _Largest(TorchDispatchMode):
    """Looks at what every operation returns, views of the weights excepted."""

    def __init__(self, fixed: set[int]) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self._fixed = fixed
        self.bytes = 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in trees.tensors(out):
            if x.untyped_storage().data_ptr() not in self._fixed:
                self.bytes = max(self.bytes, x.nbytes)
        return out


def _kind(x: Any) -> tuple[torch.dtype, torch.Size] | None:
    """What has to be alike for two leaves to be joined; None if they cannot be."""
    there = isinstance(x, Tensor) and x.dim() > 0
    return (x.dtype, x.shape[1:]) if there else None


def _channels_last(x: Any) -> Any:
    if isinstance(x, Tensor) and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x

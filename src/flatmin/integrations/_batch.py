"""The part of a trainer's batch that a pass needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from flatmin.optim import Probe


def take(probe: Probe, batch: Any) -> Any:
    """``probe.take`` for a trainer's batch: tensors in tuples, lists and mappings.

    A batch that the pass wants whole stays as it is, whatever the shapes in it.

    Args:
        probe: the pass.
        batch: holds tensors with examples along a common first axis; whatever is no
            tensor, or has no axis, stays as it is.

    Returns:
        The same kind of batch, with the examples this pass needs.

    Raises:
        ValueError: the tensors' first axes differ.
    """
    found = [t for t in _tensors(batch) if t.dim()] if probe.wants_part else []
    if not found:
        return batch
    taken = probe.take(*found)
    parts = iter([taken] if isinstance(taken, Tensor) else taken)
    return _replaced(batch, parts)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from _tensors(value)


def _replaced(batch: Any, parts: Iterator[Tensor]) -> Any:
    if isinstance(batch, Tensor):
        return next(parts) if batch.dim() else batch
    if isinstance(batch, Mapping):
        # Trainers read attributes of the class (BatchEncoding), so it stays the same.
        kind: Any = type(batch)
        return kind({key: _replaced(v, parts) for key, v in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_replaced(v, parts) for v in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_replaced(v, parts) for v in batch)
    return batch

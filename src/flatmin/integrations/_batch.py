"""A trainer's batch, for one pass after the other."""

from __future__ import annotations

import copy
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


class Handed:
    """Hands a batch to every pass of a step, as it was before the first.

    The first pass has the trainer's own object, which callbacks may look at afterwards.
    Later ones have others with the same tensors, so that a step which replaces or
    removes an entry does so once for each.

    Attributes:
        batch: what the trainer gave.
    """

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self._kept = _others(batch)
        self._begun = False
        found = [t for t in _tensors(batch) if not t.is_inference()]
        self._versions = [(t, t._version) for t in found]

    def to(self, probe: Probe) -> Any:
        """`take` from the batch.

        Raises:
            ValueError: as `take`.
            RuntimeError: an earlier pass has changed a tensor in place.
        """
        if any(t._version != version for t, version in self._versions):
            raise RuntimeError(
                "the training step changed a tensor of its batch in place, so the next "
                "pass would see another batch. Write it as x = x * 2, not x *= 2."
            )
        batch = _others(self._kept) if self._begun else self.batch
        self._begun = True
        return take(probe, batch)


def _others(batch: Any) -> Any:
    """Copy the containers of a batch, and not its tensors."""
    if isinstance(batch, list) and type(batch) is list:
        return [_others(value) for value in batch]
    if isinstance(batch, dict) and type(batch) is dict:
        return {key: _others(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and type(batch) is tuple:
        return tuple(_others(value) for value in batch)
    return copy.copy(batch) if isinstance(batch, Mapping | list | tuple) else batch


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

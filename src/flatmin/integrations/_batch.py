"""A trainer's batch, for one pass after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
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
    return _rebuilt(batch, lambda t: next(parts) if t.dim() else t)


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
        self._kept = _with_own_containers(batch)
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
        batch = _with_own_containers(self._kept) if self._begun else self.batch
        self._begun = True
        return take(probe, batch)


def _with_own_containers(batch: Any) -> Any:
    """Copy the containers of a batch, and not its tensors."""
    return _rebuilt(batch, lambda t: t)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from _tensors(value)


def _rebuilt(batch: Any, of: Callable[[Tensor], Tensor]) -> Any:
    """Put other tensors into containers of the same kinds, with the same attributes."""
    if isinstance(batch, Tensor):
        return of(batch)
    if isinstance(batch, MutableMapping):
        # Trainers read attributes of the object (BatchEncoding), so it is a copy.
        found: Any = copy.copy(batch)
        for key, value in batch.items():
            found[key] = _rebuilt(value, of)
        return found
    if isinstance(batch, Mapping):
        kind: Any = type(batch)
        return kind({key: _rebuilt(value, of) for key, value in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_rebuilt(value, of) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_rebuilt(value, of) for value in batch)
    return batch

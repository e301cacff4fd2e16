"""Tensors that only the forward pass may change, such as an EMA teacher's weights.

Nearly all of them never change, and a model may have billions of weights. So small
tensors are copied in every step, and large ones only after they were seen to change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from flatmin.optim._tensor_copy import (
    Look,
    Mark,
    TensorCopy,
    marks,
    parts,
    parts_of_all,
)

#: How many bytes are copied in every step whether or not anything changes.
_ALWAYS = 2**26


class FrozenReplay:
    """Rewinds tensors that a forward pass changes, without copying all in every step.

    In steps 1, 2, 4, 8, ... a copy is made of as many bytes as the model trains, and
    compared after the first pass; what has changed is copied in every step from then
    on. For the rest, torch's count of in-place changes and the address of the memory
    reveal most changes, in every step.

    Args:
        name_of: the name of a tensor, for the message.
    """

    def __init__(self, name_of: Callable[[Tensor], str]) -> None:
        self._name_of = name_of
        self._start, self._end = TensorCopy(), TensorCopy()
        self._steps = 0
        self._tensors: list[Tensor] = []
        self._small: list[Tensor] = []
        self._large: list[Tensor] = []
        self._known: dict[int, Tensor] = {}
        self._watched: list[Tensor] = []
        self._marks: list[Mark] = []
        self._looked = Look()

    def begin(self, tensors: list[Tensor], trained: Sequence[Tensor]) -> None:
        """Before the first pass: copy those that may change."""
        self._steps += 1
        if not _same(tensors, self._tensors):
            self._tensors = tensors
            self._small, self._large = _split(_apart(tensors, trained), _ALWAYS)
        self._start.save([*self._small, *self._known.values()])
        self._watched = [t for t in self._large if id(t) not in self._known]
        self._marks = marks(self._watched)
        self._looked = Look()
        if self._watched and self._steps & (self._steps - 1) == 0:
            self._looked = Look(_split(self._watched, sum(map(_size, trained)))[0])

    def keep(self) -> None:
        """After the first pass: remember what has changed, and its new values.

        Raises:
            RuntimeError: a tensor has changed of which there is no copy.
        """
        lost = self._lost()
        found = self._looked.changed()
        self._known |= {id(t): t for t in [*found, *lost]}
        if lost:
            raise RuntimeError(self._sentence(lost[0]))
        self._end.save([*self._start.changed(), *found])

    def rewind(self) -> None:
        """Before any later pass: back to the start."""
        self._start.load()
        self._looked.load()

    def finish(self) -> None:
        """After the last pass: to where the first one ended.

        Raises:
            RuntimeError: a later pass has changed a tensor of which there is no copy.
                For example, a teacher that equals its student first changes at
                ``w + eps``.
        """
        late = self._lost()
        self._known |= {id(t): t for t in [*self._looked.changed(), *late]}
        self._start.load()
        self._looked.load()
        self._end.load()
        if late:
            raise RuntimeError(self._sentence(late[0]))

    def _lost(self) -> list[Tensor]:
        """Return the tensors that have changed and of which there is no copy."""
        rows = zip(self._watched, marks(self._watched), self._marks, strict=True)
        return [t for t, m, then in rows if m != then and not self._looked.has(t)]

    def _sentence(self, t: Tensor) -> str:
        return (
            f"the forward pass changes {self._name_of(t)}, of shape {tuple(t.shape)}, "
            "which SAM does not train and had not copied because of its size, so the "
            "second pass would start from a changed one. Make this change after "
            "optimizer.step(), outside of forward, or register the tensor as a buffer."
        )


def _split(tensors: Sequence[Tensor], most: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return the smallest tensors, up to ``most`` bytes in all, and the rest."""
    small: list[Tensor] = []
    ordered = sorted(tensors, key=_size)
    for t in ordered:
        most -= _size(t)
        if most < 0:
            break
        small.append(t)
    return small, ordered[len(small) :]


def _apart(tensors: Sequence[Tensor], trained: Sequence[Tensor]) -> list[Tensor]:
    """Leave out views of trained weights: copies of these hold their values too."""
    moved = [p for p in parts_of_all(trained) if _has_address(p) and p.is_contiguous()]
    spans = [(p.data_ptr(), p.data_ptr() + p.nbytes) for p in moved]
    return [t for t in tensors if not any(_within(part, spans) for part in parts(t))]


def _within(t: Tensor, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether the first entry is in one of these spans of addresses."""
    return _has_address(t) and any(a <= t.data_ptr() < b for a, b in spans)


def _has_address(t: Tensor) -> bool:
    return t.layout == torch.strided and t.numel() > 0


def _size(t: Tensor) -> int:
    """About how many bytes a copy takes."""
    return 0 if is_lazy(t) else _entries(t) * t.element_size()


def _entries(t: Tensor) -> int:
    return t.numel() if t.layout == torch.strided else t._nnz()


def _same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(map(is_, a, b))

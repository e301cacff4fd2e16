# pyright: reportPrivateUsage=false
"""Copies of the values of tensors of every kind, and the way back into them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from flatmin.core import _tensors as ts
from flatmin.core._shards import PLAIN, all_plain, local

Mark = tuple[int, int]


class TensorCopy:
    """Values of tensors; the memory for them is allocated once."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._values: list[Tensor] = []
        self._inferred: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def save(self, tensors: Sequence[Tensor]) -> None:
        """Remember the values of these tensors, in place of those from before."""
        whole = parts_of_all(tensors)
        self._inferred = [(t, t.clone()) for t in whole if t.is_inference()]
        if self._inferred:
            whole = [t for t in whole if not t.is_inference()]
        self._tensors = whole
        if not alike(self._values, self._tensors):
            self._values = [torch.empty_like(t) for t in self._tensors]
        if self._tensors:
            ts.copy_(self._values, self._tensors)

    @torch.no_grad()
    def load(self) -> None:
        """Write the values back, into the same memory if they still fit."""
        for t, v in self._pairs():
            if not _fits(t, v):
                _refit(t, v)
        if self._tensors:
            ts.copy_(self._tensors, self._values)
        if self._inferred:
            with torch.inference_mode():
                for t, v in self._inferred:
                    t.copy_(v)

    def changed(self) -> list[Tensor]:
        """Return the tensors whose values differ now, as far as the CPU knows.

        On other devices, reading values would wait: all tensors there are returned.
        """
        return [t for t, v in self._pairs() if _may_differ(t, v)]

    def differs(self) -> bool:
        """Whether any tensor has another value now; waits for the device.

        NaN is no other value than NaN.
        """
        pairs = [(t, v) for t, v in self._pairs() if t.layout == torch.strided]
        return any(not _fits(t, v) or _any_differs(t, v) for t, v in pairs)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self._tensors, self._values, strict=True))


class Look:
    """Copies of tensors, to see whether a pass changes them."""

    def __init__(self, tensors: Sequence[Tensor] = ()) -> None:
        self._copies = {id(t): (t, TensorCopy()) for t in tensors}
        for t, copy in self._copies.values():
            copy.save([t])

    def has(self, t: Tensor) -> bool:
        return id(t) in self._copies

    def changed(self) -> list[Tensor]:
        """Return the tensors that have changed; waits for the device."""
        return [t for t, copy in self._copies.values() if copy.differs()]

    def load(self) -> None:
        for _, copy in self._copies.values():
            copy.load()


def mark(t: Tensor) -> Mark:
    """Return what most changes alter: torch's count of changes, and the address."""
    if (type(t) not in PLAIN and is_lazy(t)) or t.is_inference():
        return -1, 0
    own = type(t) in PLAIN and t.layout == torch.strided
    return t._version, t.data_ptr() if own else 0


def marks(tensors: Sequence[Tensor]) -> list[Mark]:
    """Return the `mark` of each; ten times as fast if all tensors are ordinary."""
    if all_plain(tensors):
        with suppress(RuntimeError):  # of a tensor of inference mode, or without memory
            return [(t._version, t.data_ptr()) for t in tensors]
    return [mark(t) for t in tensors]


def is_whole(t: Tensor) -> bool:
    """Whether ``t`` holds its values itself; a subclass may be made of others."""
    return type(t) in PLAIN or not is_traceable_wrapper_subclass(t)


def parts(t: Any) -> list[Tensor]:
    """Return the tensors that hold the values of ``t``: itself, or those it is made of.

    Empty if ``t`` cannot be written to in place: it is not made yet, its entries share
    memory, or it is a result that autograd follows. Sharded tensors have a part here;
    quantized ones (torchao's) are made of integers and scales.
    """
    if type(t) not in PLAIN:
        if is_lazy(t):
            return []
        (t,) = local([t])
    if not is_whole(t):
        names, _ = t.__tensor_flatten__()
        return [part for name in names for part in parts(getattr(t, name))]
    return [] if _is_followed(t) or _expanded(t) else [t]


def parts_of_all(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the `parts` of each; several times as fast for ordinary tensors."""
    found: list[Tensor] = []
    for t in tensors:
        ordinary = type(t) in PLAIN and t.layout == torch.strided
        if ordinary and t.is_contiguous() and not _is_followed(t):
            found.append(t)
        else:
            found += parts(t)
    return found


def _is_followed(t: Any) -> bool:
    """Whether ``t`` is a result of an operation that autograd follows, or its view.

    Of a view without a gradient, torch refuses to say so once the result has changed.
    """
    if type(t) is nn.Parameter or not t.requires_grad:
        return False
    return (t._is_view() and t._base.grad_fn is not None) or t.grad_fn is not None


def alike(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> bool:
    """Whether copies ``xs`` can take the values of ``ys``."""
    return len(xs) == len(ys) and all(map(_fits, xs, ys))


def _fits(x: Tensor, y: Tensor) -> bool:
    return x.shape == y.shape and x.dtype == y.dtype and x.device == y.device


def _refit(t: Tensor, value: Tensor) -> None:
    """Give ``t`` the shape, dtype and device that it had."""
    if t.dtype == value.dtype and t.device == value.device and not t.requires_grad:
        t.resize_(value.shape)
    else:
        t.data = torch.empty_like(value)


def _may_differ(t: Tensor, value: Tensor) -> bool:
    on_cpu = t.device.type == "cpu" and t.layout == torch.strided
    return not on_cpu or not _fits(t, value) or not torch.equal(t, value)


def _any_differs(t: Tensor, value: Tensor) -> bool:
    numbers = (t == t) | (value == value)
    return bool(((t != value) & numbers).any())


def _expanded(t: Tensor) -> bool:
    """Whether entries share memory, so that ``t`` cannot be written to in place."""
    if t.layout != torch.strided or 0 not in t.stride():
        return False
    return any(n > 1 and k == 0 for n, k in zip(t.shape, t.stride(), strict=True))

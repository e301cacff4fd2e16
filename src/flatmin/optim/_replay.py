# pyright: reportPrivateUsage=false
"""Side effects of a forward pass: every pass starts alike, the first one's remain.

A step of SAM runs the model several times, and must leave buffers (BatchNorm's running
statistics, any other) and random streams (dropout masks) as one run would. The official
code does the same: both passes get one key and the old statistics, and the new ones are
those of the first pass.
"""

from __future__ import annotations

import random
import sys
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flatmin.core import _tensors as ts


class Replay(Protocol):
    """Something that a pass changes and that the next one must not see changed."""

    def begin(self, parameters: list[Tensor]) -> None:
        """Before the first pass of a model with these: remember where it starts."""
        ...

    def keep(self) -> None:
        """After the first pass: remember where it ended."""
        ...

    def rewind(self) -> None:
        """Before any later pass: back to the start."""
        ...

    def finish(self) -> None:
        """After the last pass: to where the first one ended."""
        ...


class BufferReplay:
    """All buffers of a model, in place, whichever module they belong to."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules: list[nn.Module] = []
        self._start = _BufferCopy()
        self._end = _BufferCopy()

    def begin(self, parameters: list[Tensor]) -> None:
        del parameters
        self._modules = list(self._model.modules())
        self._start.save(self._modules)

    def keep(self) -> None:
        self._end.save(self._modules)

    def rewind(self) -> None:
        self._start.load()

    def finish(self) -> None:
        self._end.load()


class _BufferCopy:
    """Which buffers there are, and their values in tensors allocated once."""

    def __init__(self) -> None:
        self._places: list[tuple[dict[str, Tensor | None], dict[str, Any]]] = []
        self._buffers: list[Tensor] = []
        self._values: list[Tensor] = []

    @torch.no_grad()
    def save(self, modules: list[nn.Module]) -> None:
        self._places = [(m._buffers, dict(m._buffers)) for m in modules]
        self._buffers = [
            b
            for _, then in self._places
            for b in then.values()
            if b is not None and not _expanded(b)
        ]
        if not alike(self._values, self._buffers):
            self._values = [torch.empty_like(b) for b in self._buffers]
        if self._buffers:
            ts.copy_(self._values, self._buffers)

    @torch.no_grad()
    def load(self) -> None:
        for buffers, then in self._places:
            # A forward pass may have made new ones, or put them in old ones' place.
            buffers.clear()
            buffers.update(then)
        if self._buffers:
            ts.copy_(self._buffers, self._values)


def _expanded(b: Tensor) -> bool:
    """Whether entries share memory, so that nobody can write to it in place."""
    return b.layout == torch.strided and any(
        size > 1 and stride == 0
        for size, stride in zip(b.shape, b.stride(), strict=True)
    )


class RandomReplay:
    """The global random streams: torch on every device in use, random, NumPy."""

    def __init__(self) -> None:
        self._devices: list[torch.device] = []
        self._start: tuple[Any, ...] = ()
        self._end: tuple[Any, ...] = ()

    def begin(self, parameters: list[Tensor]) -> None:
        used = {p.device for p in parameters}
        self._devices = [d for d in used if d.type not in ("cpu", "meta")]
        self._start = self._now()

    def keep(self) -> None:
        self._end = self._now()

    def rewind(self) -> None:
        self._set(self._start)

    def finish(self) -> None:
        self._set(self._end)

    def _now(self) -> tuple[Any, ...]:
        numpy = sys.modules.get("numpy")
        return (
            torch.get_rng_state(),
            [torch.get_device_module(d).get_rng_state(d) for d in self._devices],
            random.getstate(),
            numpy.random.get_state() if numpy else None,
        )

    def _set(self, state: tuple[Any, ...]) -> None:
        cpu, devices, python, numpy = state
        torch.set_rng_state(cpu)
        for d, s in zip(self._devices, devices, strict=True):
            torch.get_device_module(d).set_rng_state(s, d)
        random.setstate(python)
        if numpy is not None:
            sys.modules["numpy"].random.set_state(numpy)


def alike(xs: list[Tensor], ys: list[Tensor]) -> bool:
    """Whether copies ``xs`` can take the values of ``ys``."""
    return len(xs) == len(ys) and all(
        x.shape == y.shape and x.dtype == y.dtype and x.device == y.device
        for x, y in zip(xs, ys, strict=True)
    )

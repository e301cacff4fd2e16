"""The state of a model's forward pass, as far as Python references lead to it.

References are followed from the model to everything that may change: modules,
registered or not, containers, objects of the model's author. Objects that hold the
model, or the optimizer around it, are its owners (a trainer) and not its state.
"""

from __future__ import annotations

import random
import sys
from array import array
from collections import deque
from collections.abc import Mapping
from copy import copy
from enum import Enum
from functools import partial
from operator import is_
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from flatmin.core._shards import any_sharded
from flatmin.optim._bases import claimed
from flatmin.optim._holders import (
    DictHolder,
    Holder,
    LongListHolder,
    ModuleHolder,
    ModuleHolders,
    ScriptHolder,
    SequenceHolder,
    SlotsHolder,
    ValueHolder,
    changeable,
    slots_of,
)

#: How far references are followed from a module, and how many holders there may be.
_DEPTH, _COUNT = 8, 20_000

#: The longest container of which every entry is remembered.
_LONG = 4096

#: The largest array of which a copy is made, in bytes.
_SMALL = 2**20

_CONTAINERS = (list, dict, set, deque, bytearray, array)
_OWN = "__dict__"

#: Packages whose objects are no state of a model, or are recognised by type.
_FOREIGN = (frozenset(sys.stdlib_module_names) - {"types", "collections"}) | {
    "torch", "numpy", "lightning", "pytorch_lightning", "lightning_fabric",
}  # fmt: skip
_TRAINS = (Optimizer, LRScheduler, GradScaler)

#: Wrappers of a model, which keep records of their own over the passes.
_WRAPPERS = {
    "DataParallel", "DistributedDataParallel", "OptimizedModule", "_FabricModule",
}  # fmt: skip


class Snapshot:
    """What a model refers to, at one time.

    Attributes:
        modules: all of them, also those that are not registered in the model.
        buffers: those of the modules.
        parameters: those of the modules.
        tensors: those that other objects refer to.
    """

    def __init__(
        self,
        model: nn.Module,
        holders: dict[int, Holder],
        tensors: list[Tensor],
    ) -> None:
        self._model, self._holders, self.tensors = model, holders, tensors
        modules = [
            h for h in holders.values() if isinstance(h, ModuleHolder | ScriptHolder)
        ]
        self.modules: list[nn.Module] = [h.module for h in modules]
        self.buffers: list[Tensor] = [b for h in modules for b in h.buffers]
        self.parameters: list[Tensor] = [p for h in modules for p in h.parameters]
        own = {k: h for k, h in holders.items() if isinstance(h, ModuleHolder)}
        self._own, self._together = own, ModuleHolders([*own.values()])
        self._rest = [(k, h) for k, h in holders.items() if k not in own]

    @classmethod
    def of(
        cls, model: nn.Module, known: Mapping[int, Holder] | None = None
    ) -> Snapshot:
        """Take a snapshot; an object with a known holder is not read again."""
        walk = _Walk(model, known or {})
        return cls(model, walk.holders, list(walk.tensors.values()))

    def again(self) -> Snapshot:
        """Take a new snapshot, which shares with this one what has not changed."""
        changed = {k: h.again() for k, h in self._changed()}
        if not changed:
            return self
        holders = {**self._holders, **changed}
        if all(_same_children(h, self._holders[k]) for k, h in changed.items()):
            return Snapshot(self._model, holders, self.tensors)
        return Snapshot.of(self._model, holders)

    def with_now(self, module: nn.Module) -> Snapshot:
        """Return this snapshot, but with the state of one module as it is now."""
        known = {**self._holders, id(module): self._holders[id(module)].again()}
        return Snapshot(self._model, known, self.tensors)

    def put(self) -> None:
        """Restore everything."""
        for _, holder in self._changed():
            holder.put()

    def _changed(self) -> list[tuple[int, Holder]]:
        found = [(k, h) for k, h in self._rest if not h.same()]
        if not self._together.same():
            found += [(k, h) for k, h in self._own.items() if not h.same()]
        return found


class _Walk:
    """Follows references from a model, nearest first."""

    def __init__(self, model: nn.Module, known: Mapping[int, Holder]) -> None:
        self.holders: dict[int, Holder] = {}
        self.tensors: dict[int, Tensor] = {}
        self._known = known
        modules = list(model.modules())
        self._registered = {id(m) for m in modules}
        inside = [c for m in modules if _is_wrapper(m) for c in m.children()]
        self._roots = {id(m) for m in [model, *inside]}
        self._sharded = any_sharded([*model.parameters()])
        self._queue: deque[tuple[Any, int]] = deque([(model, 0)])
        while self._queue and len(self.holders) < _COUNT:
            self._visit(*self._queue.popleft())

    def _visit(self, x: Any, depth: int) -> None:
        if isinstance(x, Tensor):
            self.tensors[id(x)] = x
        elif isinstance(x, tuple | frozenset | partial | MethodType):
            self._follow(changeable(_fixed(x)), depth)
        elif id(x) not in self.holders:
            holder = self._known.get(id(x)) or self._hold(x)
            if holder is not None:
                self.holders[id(x)] = holder
                self._follow(holder.children, depth)
                self._follow(_attributes_of_container(x), depth)

    def _follow(self, children: list[Any], depth: int) -> None:
        for child in children:
            # Registered modules are as near as the model itself.
            at = 0 if id(child) in self._registered else depth + 1
            if at <= _DEPTH:
                self._queue.append((child, at))

    def _hold(self, x: Any) -> Holder | None:
        if isinstance(x, nn.Module):
            return self._module(x)
        holder = _container(x) or _stream(x) or _array(x)
        if holder is None and _is_state(x) and not self._owns(x):
            return _attributes(x)
        return holder

    def _module(self, x: nn.Module) -> Holder | None:
        registered = id(x) in self._registered
        if not registered and any(id(m) in self._roots for m in x.modules()):
            return None
        if isinstance(x, torch.jit.ScriptModule):
            return ScriptHolder(x)
        # While FSDP2 gathers, other parameters stand in these places.
        fixed = not self._sharded
        return ModuleHolder(x, attributes=not _is_wrapper(x), parameters=fixed)

    def _owns(self, x: object) -> bool:
        """Whether an object refers to the model or to the optimizer around it."""
        held = [x, *getattr(x, "__dict__", {}).values()]
        return any(
            id(v) in self._roots or (isinstance(v, Optimizer) and claimed(v))
            for v in held
        )


def _attributes_of_container(x: object) -> list[Any]:
    """Return the attributes of a container, if its class is the author's own."""
    found: Any = getattr(x, _OWN, None)
    is_own = isinstance(x, _CONTAINERS) and _is_state(cast("object", x))
    return [found] if is_own and found is not None else []


def _fixed(x: Any) -> tuple[Any, ...]:
    """What an object refers to that cannot be changed itself."""
    if isinstance(x, partial):
        some = cast("partial[Any]", x)
        return (some.func, some.args, some.keywords)
    return (x.__self__,) if isinstance(x, MethodType) else tuple(x)


def _container(x: Any) -> Holder | None:
    content: Any = x
    if not isinstance(x, _CONTAINERS):
        return None
    if len(content) > _LONG:
        return LongListHolder(content, _LONG) if isinstance(x, list) else None
    if isinstance(x, dict):
        return DictHolder(content)
    if isinstance(x, list | deque):
        return SequenceHolder(content)
    read = partial(copy, content)
    if isinstance(x, set):
        members = partial(iter, content)
        write = partial(_refill, content)
        return ValueHolder(read, write, compare=True, children=members)
    write = partial(content.__setitem__, slice(None))
    return ValueHolder(read, write, compare=True)


def _refill(x: set[Any], then: set[Any]) -> None:
    x.clear()
    x.update(then)


def _stream(x: Any) -> Holder | None:
    """Return a holder for a random generator, if ``x`` is one."""
    if isinstance(x, torch.Generator):
        return ValueHolder(x.get_state, x.set_state, compare=False)
    if isinstance(x, random.Random):
        return ValueHolder(x.getstate, x.setstate, compare=True)
    numpy = sys.modules.get("numpy")
    if numpy and isinstance(x, numpy.random.Generator):
        write = partial(setattr, x.bit_generator, "state")
        return ValueHolder(lambda: x.bit_generator.state, write, compare=False)
    if numpy and isinstance(x, numpy.random.RandomState):
        return ValueHolder(x.get_state, x.set_state, compare=False)
    return None


def _array(x: Any) -> Holder | None:
    """Return a holder for a NumPy array, if ``x`` is one, small, and can be written."""
    numpy = sys.modules.get("numpy")
    array = numpy is not None and isinstance(x, numpy.ndarray)
    if array and x.nbytes <= _SMALL and x.flags.writeable:
        return ValueHolder(x.copy, partial(x.__setitem__, ...), compare=False)
    return None


def _is_state(x: object) -> bool:
    """Whether this is an object of the model's author, or trains inside the model."""
    package = type(x).__module__.partition(".")[0]
    if package in _FOREIGN or isinstance(x, type | Enum):
        return isinstance(x, _TRAINS)
    return True


def _attributes(x: Any) -> Holder:
    content = getattr(x, _OWN, None)
    kind: type[object] = x.__class__
    if content is None or slots_of(kind):
        return SlotsHolder(x)
    return DictHolder(content, x)


def _is_wrapper(module: nn.Module) -> bool:
    return any(
        c.__name__ in _WRAPPERS and c.__module__.partition(".")[0] in _FOREIGN
        for c in type(module).__mro__
    )


def _same_children(a: Holder, b: Holder) -> bool:
    return len(a.children) == len(b.children) and all(map(is_, a.children, b.children))

# pyright: reportPrivateUsage=false
"""Snapshots of Python objects that hold state, and the way back to them.

A snapshot is one level deep: it holds references, and each object that it refers to has
a snapshot of its own if it can change.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain
from operator import is_, itemgetter
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

#: Attributes that every module has for being called, and that are not its state.
MACHINERY = frozenset(nn.Module().__dict__) - {"training"} | {"_compiled_call_impl"}

_REGISTRIES = ("_parameters", "_buffers", "_modules")
#: Hooks of the forward and backward pass, and the sets of names that go with them.
_HOOKS = (
    "_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks",
)  # fmt: skip
_HOOK_FLAGS = (
    "_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)  # fmt: skip
_HIDDEN = "_non_persistent_buffers_set"
_NOTHING = object()
_NO_SLOTS = ("__dict__", "__weakref__")
_CONSTANT = frozenset(
    {NoneType, bool, int, float, complex, str, bytes, torch.dtype, torch.device}
    | {FunctionType, BuiltinFunctionType, type, object}
)


class Holder(Protocol):
    """The state of one object at one time.

    Attributes:
        children: the objects it refers to that may change.
    """

    children: list[Any]

    def same(self) -> bool:
        """Whether the object still is as it was."""
        ...

    def again(self) -> Holder:
        """Return a holder of the object's state now."""
        ...

    def put(self) -> None:
        """Restore the object's state."""
        ...


class ModuleHolder:
    """A module's attributes, its hooks, and what is registered in it."""

    def __init__(self, module: nn.Module, *, attributes: bool, parameters: bool):
        self.module = module
        self._options = {"attributes": attributes, "parameters": parameters}
        self.dict = d = module.__dict__
        self.size = len(d)
        names = [k for k in d if k not in MACHINERY] if attributes else []
        self._names = (*names, *_REGISTRIES, _HIDDEN)
        self.get = itemgetter(*self._names)
        self.values: tuple[Any, ...] = self.get(d)
        kept = _REGISTRIES if parameters else _REGISTRIES[1:]
        hooks: list[dict[Any, Any]] = [d[name] for name in _HOOKS if attributes]
        flags = [d[name] for name in _HOOK_FLAGS if any(hooks)]
        self._registries: list[dict[Any, Any]] = [*(d[name] for name in kept), *hooks]
        self._registered = [dict(r) for r in self._registries]
        self._flags = [(flag, dict(flag)) for flag in flags]
        self._hidden = set(d[_HIDDEN])
        self.empty = [r for r in [*self._registries, d[_HIDDEN]] if not r]
        self.full = [r for r in self._registries if r]
        self.full_then = [then for then in self._registered if then]
        self.hidden: list[set[str]] = [d[_HIDDEN]] if d[_HIDDEN] else []
        self.hidden_then = [self._hidden] if self._hidden else []
        called = chain.from_iterable(hook.values() for hook in hooks)
        self.children = changeable(
            (*d["_modules"].values(), *self.values[:-4], *called)
        )
        self.buffers = [b for b in d["_buffers"].values() if b is not None]
        self.parameters = [p for p in d["_parameters"].values() if p is not None]

    def same(self) -> bool:
        return self._alone.same()

    @cached_property
    def _alone(self) -> ModuleHolders:
        return ModuleHolders([self])

    def again(self) -> ModuleHolder:
        return ModuleHolder(self.module, **self._options)

    def put(self) -> None:
        d = self.dict
        for name, value in zip(self._names, self.values, strict=True):
            if d.get(name, _NOTHING) is not value:
                d[name] = value
        if self._options["attributes"]:
            for name in d.keys() - MACHINERY - set(self._names):
                del d[name]
        d[_HIDDEN].clear()
        d[_HIDDEN].update(self._hidden)
        registered = zip(self._registries, self._registered, strict=True)
        for registry, then in chain(registered, self._flags):
            registry.clear()
            registry.update(then)


class ModuleHolders:
    """Compares many modules at once, which every step does several times.

    Most modules have nothing in most of their registries, and in most steps no module
    changes. One comparison of all of them together keeps a step cheap.
    """

    def __init__(self, holders: Sequence[ModuleHolder]) -> None:
        self._reads = [(h.get, h.dict) for h in holders]
        self._dicts = [h.dict for h in holders]
        self._sizes = [h.size for h in holders]
        self._values = [v for h in holders for v in h.values]
        self._empty = [r for h in holders for r in h.empty]
        self._full = [r for h in holders for r in h.full]
        # Not from the registries, which may have changed since the holders were made.
        then = [r for h in holders for r in h.full_then]
        self._lengths = list(map(len, then))
        self._keys = list(chain.from_iterable(then))
        self._registered = [v for r in then for v in r.values()]
        self._hidden = [s for h in holders for s in h.hidden]
        self._names = [s for h in holders for s in h.hidden_then]

    def same(self) -> bool:
        """Whether all modules still are as they were."""
        if any(self._empty) or list(map(len, self._dicts)) != self._sizes:
            return False
        try:
            values = chain.from_iterable([get(d) for get, d in self._reads])
        except KeyError:
            return False
        return all(map(is_, values, self._values)) and self._same_registries()

    def _same_registries(self) -> bool:
        registered = chain.from_iterable([r.values() for r in self._full])
        return (
            list(map(len, self._full)) == self._lengths
            and list(chain.from_iterable(self._full)) == self._keys
            and all(map(is_, registered, self._registered))
            and self._hidden == self._names
        )


class ScriptHolder:
    """The attributes of a TorchScript module, which live in C++."""

    parameters: tuple[Tensor, ...] = ()

    def __init__(self, module: Any) -> None:
        self.module = module
        declared = module._concrete_type.get_attributes()
        self._names = [name for name, (_, is_p) in declared.items() if not is_p]
        self._values = self._now()
        self.buffers = [v for v in self._values if isinstance(v, Tensor)]
        self.children = changeable((*module._modules.values(), *self._values))

    def _now(self) -> list[Any]:
        return [self.module._c.getattr(name) for name in self._names]

    def same(self) -> bool:
        return _alike(self._now(), self._values)

    def again(self) -> ScriptHolder:
        return ScriptHolder(self.module)

    def put(self) -> None:
        now = self._now()
        for name, value, current in zip(self._names, self._values, now, strict=True):
            if not _alike(value, current):
                self.module._c.setattr(name, value)


class DictHolder:
    """A dict, or the attributes of an object."""

    def __init__(self, content: dict[Any, Any], owner: object = None) -> None:
        self._content, self._owner = content, owner
        self._then = dict(content)
        self.children = changeable(chain(self._then, self._then.values()))

    def same(self) -> bool:
        now = self._content
        return now.keys() == self._then.keys() and all(
            map(is_, now.values(), self._then.values())
        )

    def again(self) -> DictHolder:
        return DictHolder(self._content, self._owner)

    def put(self) -> None:
        # The methods of the plain type: those of a subclass may do more.
        kind: Any = OrderedDict if isinstance(self._content, OrderedDict) else dict
        kind.clear(self._content)
        for key, value in self._then.items():
            kind.__setitem__(self._content, key, value)


class SequenceHolder:
    """A list or a deque."""

    def __init__(self, content: list[Any] | deque[Any]) -> None:
        self._content = content
        self._then = list(content)
        self.children = changeable(self._then)

    def same(self) -> bool:
        now = self._content
        return len(now) == len(self._then) and all(map(is_, now, self._then))

    def again(self) -> SequenceHolder:
        return SequenceHolder(self._content)

    def put(self) -> None:
        kind: Any = deque if isinstance(self._content, deque) else list
        kind.clear(self._content)
        kind.extend(self._content, self._then)


class SlotsHolder:
    """The attributes of an object that has slots."""

    def __init__(self, owner: object) -> None:
        self._owner = owner
        names = slots_of(type(owner))
        self._then = {name: getattr(owner, name, _NOTHING) for name in names}
        content = getattr(owner, "__dict__", None)
        self.children = changeable([*self._then.values(), content])

    def same(self) -> bool:
        then = self._then.items()
        return all(getattr(self._owner, k, _NOTHING) is v for k, v in then)

    def again(self) -> SlotsHolder:
        return SlotsHolder(self._owner)

    def put(self) -> None:
        for name, value in self._then.items():
            if value is not _NOTHING:
                object.__setattr__(self._owner, name, value)
            elif hasattr(self._owner, name):
                object.__delattr__(self._owner, name)


class LongListHolder:
    """A list too long to copy: how long it was, and its last entries.

    Appended entries are removed again. Changes in the middle are not seen.
    """

    def __init__(self, content: list[Any], tail: int) -> None:
        self._content, self._tail = content, tail
        self._size = len(content)
        self._last = content[-tail:]
        self.children: list[Any] = []

    def same(self) -> bool:
        return len(self._content) == self._size

    def again(self) -> LongListHolder:
        return LongListHolder(self._content, self._tail)

    def put(self) -> None:
        del self._content[self._size :]
        missing = self._size - len(self._content)
        if missing:
            self._content.extend(self._last[-missing:])


class ValueHolder:
    """A set, an array, a random stream: anything that is read and written as a whole.

    Args:
        read: returns a copy of the value.
        write: takes what ``read`` returned.
        compare: whether two such copies can be compared by ``==``.
        children: returns the objects in it.
    """

    def __init__(
        self,
        read: Callable[[], Any],
        write: Callable[[Any], Any],
        *,
        compare: bool,
        children: Callable[[], Iterable[Any]] = tuple,
    ) -> None:
        self._read, self._write, self._compare = read, write, compare
        self._members = children
        self._then = read()
        self.children: list[Any] = changeable(children())

    def same(self) -> bool:
        return self._compare and self._read() == self._then

    def again(self) -> ValueHolder:
        return ValueHolder(
            self._read, self._write, compare=self._compare, children=self._members
        )

    def put(self) -> None:
        self._write(self._then)


def changeable(values: Iterable[Any]) -> list[Any]:
    """The values that can change without being replaced."""
    return [v for v in values if type(v) not in _CONSTANT]


def slots_of(kind: type) -> list[str]:
    """The names of all slots of a class, private ones as Python stores them."""
    found: list[str] = []
    for c in kind.__mro__:
        slots = c.__dict__.get("__slots__", ())
        own = (slots,) if isinstance(slots, str) else tuple(slots)
        found += [_stored(c, name) for name in own if name not in _NO_SLOTS]
    return found


def _stored(kind: type, name: str) -> str:
    private = name.startswith("__") and not name.endswith("__")
    return f"_{kind.__name__.lstrip('_')}{name}" if private else name


def _alike(a: Any, b: Any) -> bool:
    """Whether values of TorchScript are equal; tensors, if they are the same object."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return a is b
    pair: tuple[Any, Any] = a, b
    if all(isinstance(x, list | tuple) for x in pair):
        return len(pair[0]) == len(pair[1]) and all(map(_alike, *pair))
    if all(isinstance(x, dict) for x in pair):
        ours, theirs = pair
        return ours.keys() == theirs.keys() and all(
            map(_alike, ours.values(), theirs.values())
        )
    return bool(a == b)

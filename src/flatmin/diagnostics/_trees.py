"""Batches as flat lists of what is in them, and the way back.

torch's own functions open tuples, lists and dictionaries. These also open other
mappings, such as the BatchEncoding of transformers, and dataclasses.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, cast

from torch import Tensor
from torch.utils import _pytree

#: Not annotated in torch.
_tree: Any = _pytree


@dataclass(frozen=True)
class _Box:
    """A container that torch does not open.

    Attributes:
        like: the container itself.
        names: of its entries.
        inside: how its entries are built.
    """

    kind: Any
    names: tuple[Any, ...]
    inside: Shape
    like: Any = field(compare=False)

    def filled(self, values: Sequence[Any]) -> Any:
        """A container of the same kind with other values."""
        new = _emptied(self.like, self.names)
        # A frozen dataclass refuses setattr.
        put: Any = object.__setattr__
        if isinstance(self.like, MutableMapping):
            put = operator.setitem
        for name, value in zip(self.names, values, strict=True):
            put(new, name, value)
        return new


@dataclass(frozen=True)
class Shape:
    """How leaves are put together; two trees are alike if their shapes are equal."""

    spec: Any
    boxes: tuple[_Box | None, ...]


def flatten(tree: Any) -> tuple[list[Any], Shape]:
    """Return the leaves of a tree, and how it is built of them."""
    tops, spec = _tree.tree_flatten(tree)
    leaves: list[Any] = []
    boxes: list[_Box | None] = []
    for top in tops:
        names = _names(top)
        if names is None:
            leaves.append(top)
            boxes.append(None)
        else:
            inner, shape = flatten(_values(top, names))
            leaves += inner
            boxes.append(_Box(cast("Any", type(top)), names, shape, top))
    return leaves, Shape(spec, tuple(boxes))


def unflatten(leaves: Sequence[Any], shape: Shape) -> Any:
    """Build the tree that has these leaves."""
    return _built(iter(leaves), shape)


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to every leaf; the same tree if it changes none."""
    leaves, shape = flatten(tree)
    new = [function(x) for x in leaves]
    if all(a is b for a, b in zip(leaves, new, strict=True)):
        return tree
    return unflatten(new, shape)


def tensors(tree: Any) -> list[Tensor]:
    """The tensors in a tree."""
    return [x for x in flatten(tree)[0] if isinstance(x, Tensor)]


def detached(tree: Any) -> Any:
    """The same tree; no gradient flows through its tensors."""
    return mapped(_cut_off, tree)


def _cut_off(x: Any) -> Any:
    return x.detach() if isinstance(x, Tensor) and x.requires_grad else x


def _built(rest: Iterator[Any], shape: Shape) -> Any:
    tops = [
        next(rest) if box is None else box.filled(_built(rest, box.inside))
        for box in shape.boxes
    ]
    return _tree.tree_unflatten(tops, shape.spec)


def _names(x: Any) -> tuple[Any, ...] | None:
    """The names of a container's entries; None for what is no container."""
    if isinstance(x, MutableMapping):
        return tuple(cast("MutableMapping[Any, Any]", x))
    if is_dataclass(x) and not isinstance(x, type):
        return tuple(one.name for one in fields(x) if hasattr(x, one.name))
    return None


def _emptied(like: Any, names: Sequence[Any]) -> Any:
    """A container of the same kind whose entries can be set without a trace."""
    kind = cast("type[Any]", type(like))
    if issubclass(kind, dict) or is_dataclass(kind) or hasattr(kind, "__copy__"):
        return copy.copy(like)
    # A shallow copy of other mappings may share the place where entries are kept.
    return copy.deepcopy(like, {id(x): x for x in _values(like, names)})


def _values(x: Any, names: Sequence[Any]) -> list[Any]:
    if isinstance(x, MutableMapping):
        return [x[name] for name in names]
    return [getattr(x, name) for name in names]

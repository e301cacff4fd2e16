"""Batches of every kind are opened, cut, counted and put together again."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.diagnostics import Objective, m_sharpness
from flatmin.diagnostics import _batches as batching
from flatmin.diagnostics import _trees as trees
from tests.diagnostics.problems import batches, classifier
from tests.problems import mlp


@dataclass(frozen=True, slots=True)
class Frozen:
    """A dataclass that refuses to be written to."""

    x: Any
    y: Any


class Guarded(MutableMapping[str, Any]):
    """Keeps its entries in a dictionary that a shallow copy shares."""

    def __init__(self, **entries: Any) -> None:
        self._entries = entries

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._entries[key] = value

    def __delitem__(self, key: str) -> None:
        del self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class Sub(dict[str, Any]):
    """A dictionary of a kind that torch does not open."""


KINDS: dict[str, Any] = {
    "dict": dict,
    "OrderedDict": OrderedDict,
    "UserDict": UserDict,
    "dict of another kind": Sub,
    "mapping": Guarded,
    "dataclass": Frozen,
}


def entry(batch: Any, name: str) -> Any:
    return getattr(batch, name) if isinstance(batch, Frozen) else batch[name]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_tree_is_built_again_from_its_leaves_and_the_first_one_stays(
    kind: Any,
) -> None:
    x, y = torch.ones(2), [torch.zeros(3), "name"]
    tree = [kind(x=x, y=y), None]
    leaves, shape = trees.flatten(tree)
    assert [type(leaf) for leaf in leaves if leaf is not None] == [Tensor, Tensor, str]
    new = trees.mapped(lambda t: t + 1 if isinstance(t, Tensor) else t, tree)
    assert type(new[0]) is kind
    assert torch.equal(entry(new[0], "x"), torch.full((2,), 2.0))
    assert entry(new[0], "y")[1] == "name"
    assert entry(tree[0], "x") is x
    assert torch.equal(x, torch.ones(2))
    same = trees.unflatten(leaves, shape)
    assert entry(same[0], "y")[0] is y[0]
    assert shape == trees.flatten(new)[1]
    assert shape != trees.flatten([kind(x=x, y=x), None])[1]


def test_a_tree_without_a_change_is_the_same_object() -> None:
    tree = UserDict(x=torch.ones(1), y="name")
    assert trees.mapped(lambda x: x, tree) is tree


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_batches_of_every_kind_are_moved_counted_and_cut(kind: Any) -> None:
    model, plain = classifier()
    data = [kind(x=x, y=y) for x, y in batches()]
    objective = Objective(
        model,
        F.cross_entropy,
        data,
        forward=lambda m, b: (m(entry(b, "x")), entry(b, "y")),
    )
    size = sum(x.nbytes + y.nbytes for x, y in batches())
    assert batching.kept(objective, size - 1) is None
    kept = batching.kept(objective, size)
    assert kept is not None
    cut = batching.cut(kept, 5)
    assert [len(entry(one, "y")) for one in cut] == [5, 5, 5, 5, 4]
    expected = m_sharpness(plain, 0.3, 2)
    found = m_sharpness(objective, 0.3, 2)
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    assert found.groups == 12
    objective.w = [nn.Parameter(torch.empty(0, device="meta"))]
    assert entry(next(objective.batches()), "x").is_meta


def test_outputs_and_targets_may_be_mappings() -> None:
    def forward(model: Any, pair: Any) -> tuple[Any, Any]:
        return UserDict(logits=model(pair[0])), UserDict(labels=pair[1])

    def mean(outputs: Any, targets: Any) -> Tensor:
        return F.cross_entropy(outputs["logits"], targets["labels"])

    model = mlp()
    found = Objective(model, mean, batches(), forward=forward)
    expected = classifier(model=model)[1]
    assert float(found.loss()) == pytest.approx(float(expected.loss()), rel=1e-12)

"""Single objects that hold state, where no pass of a model goes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from flatmin import SAM
from flatmin.optim import _wrapping
from flatmin.optim._holders import LongListHolder, ModuleHolder, SlotsHolder
from flatmin.optim._states import States
from flatmin.optim._watch import watching
from tests.problems import OneProcess, batch, loss_of, sam_steps, two_layers, untouched

DATA = batch(torch.float64)


def test_an_attribute_under_another_name_is_a_change() -> None:
    module: Any = nn.Linear(2, 2)
    module.old = 1
    holder = ModuleHolder(module, attributes=True, parameters=True)
    del module.old
    module.new = 1
    assert not holder.same()
    holder.put()
    assert module.old == 1
    assert not hasattr(module, "new")
    assert holder.same()


def test_of_a_wrapper_only_what_is_registered_comes_back() -> None:
    module: Any = nn.Linear(2, 2)
    holder = ModuleHolder(module, attributes=False, parameters=True)
    module.books = 1
    module.register_buffer("late", torch.zeros(2))
    holder.put()
    assert module.books == 1
    assert not hasattr(module, "late")


def test_a_registry_that_was_filled_is_a_change() -> None:
    module = nn.ReLU()
    holder = ModuleHolder(module, attributes=True, parameters=True)
    assert holder.same()
    module.register_buffer("late", torch.zeros(2))
    assert not holder.same()


def test_what_is_not_saved_is_not_saved_again_and_nothing_else() -> None:
    module: Any = nn.ReLU()
    module.register_buffer("hidden", torch.zeros(1), persistent=False)
    module.register_buffer("saved", torch.zeros(1))
    holder = ModuleHolder(module, attributes=True, parameters=True)
    module.register_buffer("hidden", module.hidden)
    module.register_buffer("saved", module.saved, persistent=False)
    assert list(module.state_dict()) == ["hidden"]
    holder.put()
    assert list(module.state_dict()) == ["saved"]
    assert holder.same()


class Slim:
    __slots__ = ("late", "n")

    def __init__(self) -> None:
        self.n = 0


def test_a_slot_that_was_empty_is_empty_again() -> None:
    slim = Slim()
    holder = SlotsHolder(slim)
    holder.put()
    assert not hasattr(slim, "late")
    slim.n, slim.late = 1, 2
    holder.put()
    assert slim.n == 0
    assert not hasattr(slim, "late")


def test_what_is_taken_from_the_end_of_a_long_list_comes_back() -> None:
    content = list(range(10))
    holder = LongListHolder(content, 4)
    del content[-3:]
    assert not holder.same()
    holder.put()
    assert content == list(range(10))


def test_states_are_those_of_all_parameters() -> None:
    model = two_layers()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model)
    states = States(optimizer.base)
    assert len(states) == 0
    sam_steps(optimizer, model, DATA, 1)
    assert len(states) == 4
    assert [id(p) for p in states] == [id(p) for p in model.parameters()]


def test_what_is_compiled_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[nn.Module] = []
    model = nn.ReLU()
    with watching(seen.append):
        model(torch.ones(1))
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        model(torch.ones(1))
    assert seen == [model]


class Around(nn.Module):
    """What torch.compile returns, by its attribute."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._orig_mod(x)


@pytest.mark.parametrize("compiled", [False, True])
def test_one_of_several_processes_sees_the_wrapper(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = two_layers()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    with OneProcess():
        assert not _wrapping._in_processes()
        monkeypatch.setattr(_wrapping, "_in_processes", lambda: True)
        replica: nn.Module = DistributedDataParallel(model)
        if compiled:
            replica = Around(replica)
        sam_steps(optimizer, model, DATA, 1)
        loop = iter(optimizer.probes())
        next(loop)
        with untouched(model), pytest.raises(RuntimeError, match=r"optimizer\.attach"):
            loss_of(replica, DATA)
        del loop
        optimizer.attach(replica)
        sam_steps(optimizer, replica, DATA, 1)

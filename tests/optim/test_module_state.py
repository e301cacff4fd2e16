"""What a forward pass notes in its modules is there once, as after one pass."""

from __future__ import annotations

import copy
import random
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from tests.optim.kept import assert_as_on_copies
from tests.optim.stateful import Change, Stateful, append, array, key, pop, run

pytestmark = pytest.mark.usefixtures("in_double")


@dataclass
class Record:
    n: int = 0
    past: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Slim:
    n: int = 0
    late: float = field(init=False)


class Bound:
    __slots__ = "n"

    def __init__(self) -> None:
        self.n = 0


class Phase(Enum):
    ONE = 1
    TWO = 2


def count(m: Any, y: Tensor) -> float:
    m.state += 1
    return 1.0 / m.state


def flag(m: Any, y: Tensor) -> float:
    first, m.state = not m.state, True
    return 3.0 if first else 1.0


def mean(m: Any, y: Tensor) -> float:
    m.state = 0.9 * m.state + y.abs().mean().item()
    return 1 + m.state


def appears(m: Any, y: Tensor) -> float:
    new = not hasattr(m, "late")
    m.late = 2.0
    return 3.0 if new else 1.0


def vanishes(m: Any, y: Tensor) -> float:
    there = "state" in m.__dict__
    m.__dict__.pop("state", None)
    return 3.0 if there else 1.0


def renamed(m: Any, y: Tensor) -> float:
    if "state" in m.__dict__:
        m.other = m.__dict__.pop("state")
        return 3.0
    return 1.0


def replaced(m: Any, y: Tensor) -> Tensor:
    m.state = m.state + y.mean(0)
    return m.state


def in_place(m: Any, y: Tensor) -> Tensor:
    m.state.add_(y.mean(0))
    return m.state.clone()


def behind(m: Any, y: Tensor) -> Tensor:
    m.state.data.add_(y.mean(0))
    return m.state.clone()


def nested(m: Any, y: Tensor) -> float:
    m.state[0]["a"].append(1.0)
    m.state[1].add(len(m.state[1]))
    return 1.0 + len(m.state[0]["a"]) + len(m.state[1])


def record(m: Any, y: Tensor) -> float:
    m.state.n += 1
    if hasattr(m.state, "past"):
        m.state.past.append(0.5)
    return 1.0 + m.state.n


def slim(m: Any, y: Tensor) -> float:
    m.state.n += 1
    if m.state.n > 1:
        m.state.late = 2.0 if hasattr(m.state, "late") else 1.0
    return m.state.n + getattr(m.state, "late", 0.0)


def phase(m: Any, y: Tensor) -> float:
    now, m.state = m.state, Phase.TWO
    return float(now.value)


def draw(m: Any, y: Tensor) -> Tensor:
    return torch.rand(5, generator=m.state)


def roll(m: Any, y: Tensor) -> float:
    return m.state.random()


def training(m: Any, y: Tensor) -> float:
    now = m.training
    m.training = not now
    return 2.0 if now else 1.0


def registers(m: Any, y: Tensor) -> Tensor:
    if "scale" not in m._parameters:
        m.register_buffer("table", torch.rand(5), persistent=False)
        m.scale = nn.Parameter(torch.rand(5))
        m.extra = nn.Linear(5, 5)
    return m.extra(y) * m.table * m.scale.detach()


def removes(m: Any, y: Tensor) -> float:
    there = hasattr(m, "gone")
    if there:
        del m.gone
    return 3.0 if there else 1.0


def swaps(m: Any, y: Tensor) -> Tensor:
    m.state = nn.Linear(5, 5)  # draws from the stream of dropout
    return nn.functional.dropout(m.state(y), 0.5)


def hidden(m: Any, y: Tensor) -> Tensor:
    with torch.no_grad():
        m.state[0].weight.mul_(0.5)
    return m.state[0](y).detach()


def trains(m: Any, y: Tensor) -> Tensor:
    code, tune = m.state
    code.grad = torch.autograd.grad((code - y).square().mean(), code)[0]
    tune.step()
    code.grad = None
    return code.detach()


def inner() -> tuple[Tensor, torch.optim.Optimizer]:
    code = torch.rand(5).requires_grad_()
    return code, torch.optim.Adam([code], lr=0.1)


def cyclic() -> list[Any]:
    loop: list[Any] = [{"a": [1.0]}, {0}]
    loop[0]["self"] = weakref.ref(random.Random)
    return loop


KINDS: dict[str, tuple[Callable[[], Any], Change]] = {
    "int": (lambda: 0, count),
    "flag": (lambda: False, flag),
    "float": (lambda: 0.0, mean),
    "appears": (lambda: 0, appears),
    "vanishes": (lambda: 0, vanishes),
    "renamed": (lambda: 0, renamed),
    "tensor replaced": (lambda: torch.ones(5), replaced),
    "tensor in place": (lambda: torch.ones(5), in_place),
    "tensor by data": (lambda: torch.ones(5), behind),
    "list": (lambda: [0.1], append),
    "list shrinks": (lambda: [3.0, 2.0, 1.0], pop),
    "deque": (lambda: deque([0.1, 0.2], maxlen=2), append),
    "dict": (dict, key),
    "defaultdict": (lambda: defaultdict(float), key),
    "OrderedDict": (OrderedDict, key),
    "nested": (cyclic, nested),
    "tuple": (lambda: ({"a": [1.0]}, {0}), nested),
    "dataclass": (Record, record),
    "namespace": (lambda: SimpleNamespace(n=0, past=[]), record),
    "slots": (Slim, slim),
    "one slot": (Bound, record),
    "array": (lambda: np.ones(3), array),
    "enum": (lambda: Phase.ONE, phase),
    "torch generator": (lambda: torch.Generator().manual_seed(1), draw),
    "python generator": (lambda: random.Random(1), roll),
    "numpy generator": (lambda: np.random.default_rng(1), roll),
    "numpy state": (lambda: np.random.RandomState(1), lambda m, y: m.state.rand()),
    "bytes": (lambda: bytearray(b"a"), lambda m, y: m.state.append(7) or len(m.state)),
    "training": (lambda: 0, training),
    "registers": (lambda: 0, registers),
    "swaps": (nn.Identity, swaps),
    "hidden module": (lambda: [nn.Linear(5, 5)], hidden),
    "optimizer": (inner, trains),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_leaves_state_as_one_pass_does(kind: str) -> None:
    torch.manual_seed(3)
    start, change = KINDS[kind]
    model = Stateful(start(), change)
    inputs = [torch.randn(6, 4) for _ in range(3)]
    names = ("lift.", "head.")
    assert_as_on_copies(model, inputs, lambda name: name.startswith(names))


def test_an_optimizer_inside_may_train_what_the_base_trains_too() -> None:
    torch.manual_seed(3)
    code, x = nn.Parameter(torch.rand(5)), torch.randn(6, 4)
    tune = torch.optim.Adam([code], lr=0.1)
    model = Stateful((code, tune), trains)
    model.code = code
    twin = copy.deepcopy(model)
    twin(x)
    base = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer = SAM(base, model)
    for probe in optimizer.probes():
        (model(x).square().mean() + (code * probe.index).sum()).backward()
    optimizer.step()
    assert torch.equal(code, twin.state[0])
    assert tune.state[code]["step"] == 1


def test_a_module_that_a_pass_removes_is_there_for_the_next() -> None:
    model = Stateful(0, removes)
    model.gone = nn.Identity()
    assert_as_on_copies(model, [torch.randn(6, 4), torch.randn(3, 4)])


def test_submodules_keep_their_order() -> None:
    def moves(m: Any, y: Tensor) -> float:
        lift = m._modules.pop("lift")
        m._modules["lift"] = lift
        return 1.0

    model = Stateful(0, moves)
    twin = list(model._modules)
    run(model)
    assert list(model._modules) == [*twin[1:], twin[0]]


def test_an_attribute_that_does_not_change_is_not_written() -> None:
    writes: list[str] = []

    class Watched(Stateful):
        def __setattr__(self, name: str, value: Any) -> None:
            writes.append(name)
            super().__setattr__(name, value)

    model = Watched(0, lambda m, y: 1.0)
    before = dict(model.__dict__)
    writes.clear()
    run(model)
    assert not writes
    assert all(model.__dict__[k] is v for k, v in before.items())


def test_without_protection_state_is_that_of_the_last_pass() -> None:
    model = Stateful(0, count)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in SAM(base, model, protect_buffers=False).probes():
        model(torch.ones(2, 4)).square().mean().backward()
    assert model.state == 2


def test_three_passes_start_alike() -> None:
    from flatmin.methods import multi_step_sam

    model, seen = Stateful([0.1], append), []
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in multi_step_sam(base, model, rho=0.1).probes():
        seen.append(list(model.state))
        model(torch.ones(2, 4)).square().mean().backward()
    assert len(seen) > 2
    assert all(s == [0.1] for s in seen)
    assert len(model.state) == 2


def test_what_later_passes_alone_change_is_rewound_before_each() -> None:
    from flatmin.methods import multi_step_sam

    seen: list[list[float]] = []

    def later(m: Any, y: Tensor) -> float:
        seen.append(list(m.state))
        if len(seen) > 1:
            m.state.append(1.0)
        return 1.0

    model = Stateful([0.1], later)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in multi_step_sam(base, model, rho=0.1).probes():
        model(torch.ones(2, 4)).square().mean().backward()
    assert len(seen) > 2
    assert all(state == [0.1] for state in seen)
    assert model.state == [0.1]


def test_leaving_the_second_pass_leaves_what_the_first_left() -> None:
    model = Stateful(0, count)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    for probe in SAM(base, model).probes():
        model(torch.ones(2, 4)).square().mean().backward()
        if probe.index:
            break
    assert model.state == 1

"""State that hooks, bound methods and members of containers lead to."""

from __future__ import annotations

from array import array
from collections import UserDict
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from tests.optim.kept import assert_as_on_copies

Scale = Callable[[Any], float]


class Counter:
    """Counts its calls, and scales a layer's output by their number."""

    def __init__(self) -> None:
        self.n = 0

    def __repr__(self) -> str:
        return f"Counter at {self.n}"

    def __eq__(self, other: object) -> bool:
        return repr(self) == repr(other)

    def __hash__(self) -> int:
        return 0

    def scale(self) -> float:
        self.n += 1
        return 1 + 0.1 * self.n

    def forward(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * self.scale()

    def forward_pre(self, module: nn.Module, inputs: Any) -> Any:
        return (inputs[0] * self.scale(),)

    def backward(self, module: nn.Module, into: Any, out: Any) -> Any:
        return (into[0] * self.scale(),)

    def backward_pre(self, module: nn.Module, out: Any) -> Any:
        return (out[0] * self.scale(),)


class Counted(list[int]):
    n = 0


class Keyed(dict[str, int]):
    n = 0


class Private:
    __slots__ = ("__n",)

    def __init__(self) -> None:
        self.__n = 0

    def scale(self) -> float:
        self.__n += 1
        return 1 + 0.1 * self.__n


class Both:
    __slots__ = ("__dict__", "a")

    def __init__(self) -> None:
        self.a = self.b = 0

    def scale(self) -> float:
        self.a, self.b = self.a + 1, self.b + 2
        return 1 + 0.1 * self.a + 0.1 * self.b


class Scaled(nn.Module):
    """Scales its output by what ``scale`` returns for its state."""

    def __init__(self, state: Any, scale: Scale) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.state = state
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale(self.state)


def first(state: Any) -> float:
    """The scale of the first member."""
    return next(iter(state)).scale()


def called(state: Any) -> float:
    return state()


def attribute(state: Any) -> float:
    state.n += 1
    return 1 + 0.1 * state.n


def entry(state: Any) -> float:
    state[0] += 1
    return 1 + 0.1 * state[0]


def grown(x: list[int], by: int) -> float:
    x.append(by)
    return 1 + 0.1 * sum(x)


KINDS: dict[str, tuple[Callable[[], Any], Scale]] = {
    "bound method": (lambda: Counter().scale, called),
    "partial": (lambda: partial(grown, [], by=1), called),
    "keyword of a partial": (lambda: partial(grown, x=[], by=1), called),
    "key of a dict": (lambda: {Counter(): 1}, first),
    "member of a set": (lambda: {Counter()}, first),
    "member of a frozenset": (lambda: frozenset([Counter()]), first),
    "attribute of a list": (Counted, attribute),
    "attribute of a dict": (Keyed, attribute),
    "private slot": (Private, lambda state: state.scale()),
    "slot beside attributes": (Both, lambda state: state.scale()),
    "user dict": (lambda: UserDict({0: 0}), entry),
    "array": (lambda: array("d", [0.0]), entry),
}


@pytest.fixture(autouse=True)
def in_double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_leaves_state_as_one_pass_does(kind: str) -> None:
    torch.manual_seed(3)
    start, scale = KINDS[kind]
    inputs = [torch.randn(6, 4) for _ in range(3)]
    assert_as_on_copies(Scaled(start(), scale), inputs)


def layers() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "backward", "backward_pre"])
def test_the_state_of_a_hook_is_that_of_one_pass(kind: str) -> None:
    model = layers()
    name = f"full_{kind}" if "backward" in kind else kind
    getattr(model[2], f"register_{name}_hook")(getattr(Counter(), kind))
    assert_as_on_copies(model, [torch.randn(6, 4) for _ in range(3)])


def test_the_state_of_a_hook_that_is_registered_later_is_that_of_one_pass() -> None:
    model, x = layers(), torch.ones(2, 4)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    counters: list[Counter] = []
    for _ in range(2):
        counters.append(Counter())
        model[0].register_forward_hook(counters[-1].forward)
        for _ in optimizer.probes():
            model(x).square().mean().backward()
        optimizer.step()
    assert [counter.n for counter in counters] == [2, 1]


def doubled(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return 2 * output


class Installs(nn.Module):
    """Registers a hook in its first pass, and notes that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.installed = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.installed:
            self.installed = True
            self.layer.register_forward_hook(doubled)
        return self.layer(x)


def test_a_hook_that_a_pass_registers_is_there_once() -> None:
    model = Installs()
    assert_as_on_copies(model, [torch.randn(6, 4) for _ in range(3)])
    assert len(model.layer._forward_hooks) == 1


def twice_once(
    module: nn.Module, args: Any, kwargs: Any = None, *, handles: list[Any]
) -> Any:
    """Double the input, and remove this hook, which asked for keyword arguments."""
    assert kwargs is not None
    handles.pop().remove()
    return (2 * args[0],), kwargs


def test_a_hook_that_removes_itself_is_there_for_every_pass() -> None:
    model = layers()
    handles: list[Any] = []
    hook = partial(twice_once, handles=handles)
    handles.append(model[0].register_forward_pre_hook(hook, with_kwargs=True))
    assert_as_on_copies(model, [torch.randn(6, 4) for _ in range(3)])
    assert not model[0]._forward_pre_hooks


def test_an_object_that_holds_the_optimizer_is_no_state_of_the_model() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.optimizer: SAM | None = None
            self.passes = 0

    class Watched(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 2)
            self.trainer = Trainer()

        def forward(self, input: Tensor) -> Tensor:
            self.trainer.passes += 1
            return super().forward(input)

    model = Watched()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    model.trainer.optimizer = optimizer
    for _ in range(2):
        for _ in optimizer.probes():
            model(torch.ones(3, 4)).square().mean().backward()
        optimizer.step()
    assert model.trainer.passes == 4

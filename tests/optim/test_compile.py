"""Compiled models, steps and loops: compiled once, and equal to what was compiled."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import Unsupported
from torch._inductor import config as inductor
from torch.nn.functional import cross_entropy

import flatmin
from flatmin import SAM
from flatmin.core import LpBall, PerGroup
from flatmin.core import _tensors as ts
from flatmin.optim._weights import Weights
from tests.problems import without


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Backend:
    """Counts graphs and runs them as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2),
        nn.Flatten(), nn.Linear(144, 3),
    )  # fmt: skip


def optimizer_of(model: nn.Module) -> SAM:
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return SAM(base, model, rho=0.2)


def data() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(6)
    x = torch.randn(8, 1, 8, 8, generator=draw)
    return x, torch.randint(3, (8,), generator=draw)


def loop(optimizer: SAM, model: nn.Module, x: Tensor, y: Tensor) -> None:
    for _ in optimizer.probes():
        cross_entropy(model(x), y).backward()


def trained(model: nn.Module, steps: int) -> dict[str, Any]:
    optimizer = optimizer_of(model)
    torch.manual_seed(7)
    for _ in range(steps):
        loop(optimizer, model, *data())
        optimizer.step()
    return {k.removeprefix("_orig_mod."): v for k, v in model.state_dict().items()}


def assert_equal(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(w, b[name]) for name, w in a.items())


def test_a_compiled_model_is_compiled_once_and_trains_as_before() -> None:
    backend = Backend()
    compiled = torch.compile(network(), backend=backend, fullgraph=True)
    assert isinstance(compiled, nn.Module)
    assert_equal(trained(compiled, 5), trained(network(), 5))
    assert backend.graphs == 1


@pytest.mark.parametrize("what", ["sam", "base"])
def test_a_compiled_step_is_not_compiled_again_after_the_second(what: str) -> None:
    model, backend = network(), Backend()
    optimizer = optimizer_of(model)
    target = optimizer if what == "sam" else optimizer.base
    step = torch.compile(target.step, backend=backend)
    if what == "base":
        vars(optimizer.base)["step"], step = step, optimizer.step
    torch.manual_seed(7)
    graphs = []
    for _ in range(6):
        loop(optimizer, model, *data())
        step()
        graphs.append(backend.graphs)
    # The first step makes the momentum buffers, the second finds them.
    assert 1 <= graphs[0] <= graphs[1] == graphs[-1] <= 2
    assert_equal(model.state_dict(), trained(network(), 6))


@pytest.mark.parametrize("name", ["friendly_sam", "looksam", "vasso"])
def test_a_compiled_step_of_a_method_that_remembers_is_compiled_twice(
    name: str,
) -> None:
    def train(compiles: bool) -> tuple[dict[str, Any], list[int]]:
        model, backend, found = network(), Backend(), list[int]()
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        optimizer = getattr(flatmin, name)(base, model, rho=0.2)
        step = optimizer.step
        step = torch.compile(step, backend=backend) if compiles else step
        for _ in range(6):
            loop(optimizer, model, *data())
            step()
            found.append(backend.graphs)
        return model.state_dict(), found

    compiled, graphs = train(compiles=True)
    assert_equal(compiled, train(compiles=False)[0])
    # Once without a state, and once with one.
    assert graphs == graphs[:2] + 4 * graphs[1:2]


def test_a_compiled_training_step_is_not_compiled_again_after_the_second() -> None:
    model, backend = network(), Backend()
    optimizer = optimizer_of(model)

    @torch.compile(backend=backend)
    def train(x: Tensor, y: Tensor) -> None:
        loop(optimizer, model, x, y)
        optimizer.step()

    torch.manual_seed(7)
    graphs = []
    for _ in range(6):
        train(*data())
        graphs.append(backend.graphs)
    assert 1 <= graphs[0] <= graphs[1] == graphs[-1]
    assert_equal(model.state_dict(), trained(network(), 6))


@pytest.mark.parametrize("per_group", [False, True])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
def test_the_arithmetic_of_a_step_is_one_graph(p: float, per_group: bool) -> None:
    metric = PerGroup(LpBall(p)) if per_group else LpBall(p)
    draw = torch.Generator().manual_seed(1)
    w = [torch.randn(n, generator=draw) for n in (3, 20_000)]
    g = [torch.randn(n, generator=draw) for n in (3, 20_000)]

    def arithmetic(w: list[Tensor], g: list[Tensor]) -> tuple[Any, ...]:
        ascent = metric(w, g, [0.1, 0.2], [0, 1])
        copies = [t.clone() for t in w]
        moved = [t.clone() for t in w]
        ts.add_(moved, [e for e in ascent.eps if e is not None])
        cosine = ts.cosine(moved, g)
        eps = [a - b for a, b in zip(moved, w, strict=True)]
        ts.copy_(moved, copies)
        return *eps, ascent.norm, ascent.ok, cosine, *moved

    compiled = torch.compile(arithmetic, backend="aot_eager", fullgraph=True)
    for got, wanted in zip(compiled(w, g), arithmetic(w, g), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
def test_the_way_there_and_back_is_one_graph(p: float) -> None:
    ball, weights = LpBall(p), Weights()
    draw = torch.Generator().manual_seed(1)
    w = [nn.Parameter(torch.randn(n, generator=draw)) for n in (3, 20_000)]
    g = [torch.randn(n, generator=draw) for n in (3, 20_000)]
    before = [(q.detach().clone(), q.data_ptr()) for q in w]

    def there_and_back(w: list[Tensor], g: list[Tensor]) -> list[Tensor]:
        weights.move(w, ball(w, g, [0.1, 0.2], [0, 1]).eps, 0)
        there = [q.detach().clone() for q in w]
        weights.restore()
        return there

    eps = ball([*w], g, [0.1, 0.2], [0, 1]).eps
    compiled = torch.compile(there_and_back, backend="aot_eager", fullgraph=True)
    # The second time, the copies are there already.
    for _ in range(2):
        with without(Unsupported, "not one graph"):
            there = compiled([*w], g)
        for got, (value, _), e in zip(there, before, eps, strict=True):
            assert e is not None
            torch.testing.assert_close(got, value + e, rtol=1e-6, atol=1e-7)
        for q, (value, place) in zip(w, before, strict=True):
            assert torch.equal(q, value)
            assert q.data_ptr() == place


def small() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 3))


@pytest.mark.skipif(
    shutil.which("g++") is None and os.environ.get("CI") != "true",
    reason="no g++ on this machine: apt-get install g++",
)
def test_the_default_backend_trains_as_before() -> None:
    with inductor.patch(compile_threads=1):
        compiled = torch.compile(small(), fullgraph=True)
        assert isinstance(compiled, nn.Module)
        got = trained(compiled, 3)
    for name, wanted in trained(small(), 3).items():
        torch.testing.assert_close(got[name], wanted, rtol=0, atol=1e-6)

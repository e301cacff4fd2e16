"""A compiled model is compiled once: moving its weights and buffers goes unnoticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flatmin import SAM


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2),
        nn.Flatten(), nn.Linear(144, 3),
    )  # fmt: skip


def trained(model: nn.Module, steps: int) -> dict[str, Any]:
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer = SAM(base, model, rho=0.2)
    x, y = torch.randn(8, 1, 8, 8), torch.randint(3, (8,))
    for _ in range(steps):
        for _ in optimizer.probes():
            cross_entropy(model(x), y).backward()
        optimizer.step()
    return {k.removeprefix("_orig_mod."): v for k, v in model.state_dict().items()}


def test_a_compiled_model_is_compiled_once_and_trains_as_before() -> None:
    graphs = 0

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    eager = trained(network(), 5)
    compiled = torch.compile(network(), backend=backend)
    assert isinstance(compiled, nn.Module)
    compiled_weights = trained(compiled, 5)
    assert graphs == 1
    assert eager.keys() == compiled_weights.keys()
    assert all(torch.equal(w, compiled_weights[name]) for name, w in eager.items())

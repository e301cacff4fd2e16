"""Modes, buffers and weights that come back, whatever a pass does to them."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin.diagnostics import Objective, directions, landscape, sharpness
from flatmin.diagnostics._still import evaluating
from tests.diagnostics.problems import batches, classifier
from tests.problems import Noisy, mlp, untouched


def test_each_module_is_in_its_own_mode_afterwards() -> None:
    model = Noisy()
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert model.training
    assert model[0].training
    assert not model[1].training


def test_modes_come_back_after_an_exception() -> None:
    model = Noisy()
    with pytest.raises(KeyboardInterrupt), evaluating(model):
        raise KeyboardInterrupt
    assert all(module.training for module in model.modules())


class Counting(nn.Module):
    """Writes to buffers in ways that torch does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()
        self.seen = nn.Buffer(torch.zeros((), dtype=torch.int64))
        self.last = nn.Buffer(torch.tensor([1.0, math.nan]))
        self.grown = nn.Buffer(torch.zeros(2))
        self.wide = nn.Buffer(torch.full((1,), math.nan).expand(3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.data += 1
        self.last.data.add_(1)
        self.grown.data = torch.cat([self.grown, self.grown])
        return self.inner(x)


def test_buffers_that_are_written_to_through_data_are_as_before() -> None:
    model = Counting()
    objective = classifier(model=model)[1]
    sharpness(objective)
    assert model.seen == 0
    assert model.last[0] == 1
    assert model.last[1].isnan()
    assert torch.equal(model.grown, torch.zeros(2))
    assert model.wide.stride() == (0,)


def test_buffers_that_nobody_writes_to_are_not_written_to() -> None:
    model = mlp()
    model.register_buffer("still", torch.tensor([math.nan, 0.0]))
    sharpness(classifier(model=model)[1])
    assert model.get_buffer("still")._version == 0


def test_a_cache_of_inference_mode_is_no_obstacle() -> None:
    model = Filled()
    with torch.inference_mode():
        model(batches()[0][0])
    assert model.cache.is_inference()
    objective = classifier(model=model)[1]
    u = directions.random(objective, 0)
    assert sharpness(objective).value > 0
    assert landscape.line(objective, u, a=(0.0, 1.0)).fingerprint
    assert model.cache.tolist() == [0.0, 1.0]


class Filled(nn.Module):
    """Keeps what the first pass has computed."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()
        self.cache = nn.Buffer(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if len(self.cache) == 1:
            self.cache = torch.arange(2).double()
        return self.inner(x) + self.cache.sum()


def embedded(max_norm: float | None) -> tuple[nn.Sequential, list[Any]]:
    torch.manual_seed(1)
    table = nn.Embedding(5, 3, max_norm=max_norm)
    model = nn.Sequential(table, nn.Flatten(), nn.Linear(6, 2))
    return model, [(torch.randint(5, (8, 2)), torch.randint(2, (8,)))]


def test_a_forward_that_changes_weights_is_refused_and_undone() -> None:
    model, data = embedded(0.5)
    with untouched(model), pytest.raises(ValueError, match="max_norm = None"):
        Objective(model, cross_entropy, data)
    model[0].max_norm = None  # pyright: ignore
    objective = Objective(model, cross_entropy, data)
    model[0].max_norm = 0.5  # pyright: ignore
    with pytest.raises(ValueError, match="changes weights"):
        objective.loss()


class Clipping(nn.Module):
    """Changes weights where torch does not count it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner: Any = mlp()
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        self.inner[0].weight.data.clamp_(-0.1, 0.1)
        self.frozen.data = torch.zeros(3)
        return self.inner(x)


def test_a_change_through_data_is_refused_and_undone() -> None:
    model = Clipping()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match="the forward pass changes weights"):
        classifier(model=model)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])

"""Losses that are known as functions of the weights, as objectives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from flatmin.core import TwoPoint, scales
from flatmin.diagnostics import Objective
from flatmin.diagnostics._products import Curvature, Matrix
from tests.problems import Quadratic, assert_same, batch, mlp, snapshot

RHO = 0.3
ADAPTIVE = TwoPoint(scale=scales.Adaptive(0))


def quadratic(n: int = 5, examples: int = 3) -> tuple[Quadratic, Objective]:
    """``w'Aw / 2`` for every example."""
    model = Quadratic(n)
    data = [torch.zeros(examples, 1).double()]

    def forward(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        return module() * torch.ones_like(x), x

    return model, Objective(model, lambda out, _: out.mean(), data, forward=forward)


def regression(n: int = 40, d: int = 4) -> tuple[nn.Linear, Objective, Tensor]:
    """Mean squared error of a linear model; its Hessian is ``2 X'X / n``."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(n, d, generator=draw, dtype=torch.float64)
    y = torch.randn(n, 1, generator=draw, dtype=torch.float64)
    model = nn.Linear(d, 1, bias=False).double()
    data = list(zip(x.split(16), y.split(16), strict=True))
    return model, Objective(model, F.mse_loss, data), 2 * x.T @ x / n


def classifier(
    n: int = 24, size: int = 8, model: nn.Module | None = None, **options: Any
) -> tuple[nn.Module, Objective]:
    """Cross-entropy of a small network."""
    model = mlp() if model is None else model
    return model, Objective(model, F.cross_entropy, batches(n, size), **options)


def batches(n: int = 24, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    x, y = batch(torch.float64, n)
    return list(zip(x.split(size), y.split(size), strict=True))


def loss_of_weights(
    model: nn.Module, data: list[tuple[Tensor, Tensor]]
) -> Callable[[list[Tensor]], Tensor]:
    """Cross-entropy over all of the data as a function of the parameters."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    x = torch.cat([a for a, _ in data])
    y = torch.cat([b for _, b in data])

    def loss(w: list[Tensor]) -> Tensor:
        named = dict(zip(names, w, strict=True))
        return F.cross_entropy(functional_call(model, named, (x,)), y)

    return loss


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


@contextmanager
def no_trace(model: nn.Module) -> Iterator[None]:
    """Parameters, buffers, gradients, modes and random streams are as before."""
    import random

    import numpy as np

    for p in model.parameters():
        p.grad = torch.full_like(p, 0.5)
    before = snapshot(model)
    modes = [m.training for m in model.modules()]
    streams = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002  # pyright: ignore
    yield
    assert_same(before, snapshot(model))
    assert modes == [m.training for m in model.modules()]
    assert all(p.grad is not None and (p.grad == 0.5).all() for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert random.getstate() == streams[1]
    assert (np.random.get_state()[1] == streams[2]).all()  # noqa: NPY002  # pyright: ignore


def hessian_of(model: nn.Module, data: Any = None) -> Tensor:
    """The whole matrix, by torch.func."""
    loss, w = loss_of_weights(model, data or batches()), weights(model)
    sizes = [p.numel() for p in w]

    def flat_loss(v: Tensor) -> Tensor:
        parts = zip(v.split(sizes), w, strict=True)
        return loss([x.view(p.shape) for x, p in parts])

    return torch.func.hessian(flat_loss)(torch.cat([p.flatten() for p in w]))


def top(matrix: Tensor, k: int) -> Any:
    return pytest.approx(
        torch.linalg.eigvalsh(matrix).flip(0)[:k].tolist(), rel=1e-9, abs=1e-12
    )


def whole(objective: Objective, matrix: Matrix) -> Tensor:
    """Our matrix, column by column."""
    curvature = Curvature(objective, matrix)
    return torch.stack([curvature(e) for e in torch.eye(len(curvature.like)).double()])


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).double()


def no_bias() -> nn.Sequential:
    """Layers that can be rescaled without changing the function."""
    first, last = nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False)
    return nn.Sequential(first, nn.ReLU(), last).double()


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch says of shapes that are broadcast, and of old functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def with_biases() -> nn.Sequential:
    """The same with biases, which are scaled along."""
    torch.manual_seed(9)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()


@contextmanager
def points(objective: Objective) -> Iterator[list[Tensor]]:
    """Every ``eps`` the weights are moved by, as one vector each."""
    seen: list[Tensor] = []
    move = objective.at

    def watched(eps: Sequence[Tensor | None]) -> Any:
        seen.append(torch.cat([e.flatten() for e in eps if e is not None]))
        return move(eps)

    objective.at = watched
    yield seen
    objective.at = move

"""Losses that are known as functions of the weights, as objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from flatmin.diagnostics import Objective
from tests.problems import Quadratic, assert_same, batch, mlp, snapshot


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

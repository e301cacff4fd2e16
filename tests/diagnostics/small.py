"""Objectives whose landscapes are known, or whose layers are of every kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin.diagnostics import Objective
from tests.problems import Quadratic, batch, mlp


def quadratic() -> Objective:
    """``w'Aw / 2`` of two examples, each the same."""
    return Objective(
        Quadratic(),
        lambda outputs, _: outputs.mean(),
        [torch.zeros(2)],
        forward=lambda model, x: (model().expand(len(x)), x),
    )


def dense(seed: int = 6) -> Objective:
    """A small network in float64 over three batches, the last one smaller."""
    torch.manual_seed(seed)
    x, y = batch(torch.float64, n=20)
    return Objective(
        mlp(), cross_entropy, list(zip(x.split(8), y.split(8), strict=True))
    )


def convnet(view: bool = False) -> nn.Sequential:
    """A convolution with BatchNorm whose statistics are those of some images.

    Args:
        view: end with ``x.view``, which refuses images with their channels last.
    """
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        View() if view else nn.Flatten(),
        nn.Linear(4 * 16, 3),
    ).double()
    model(torch.randn(32, 1, 6, 6, dtype=torch.float64))
    return model.eval()


class View(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1)


def images(n: int = 20) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(n, 1, 6, 6, generator=draw, dtype=torch.float64)
    y = torch.randint(3, (n,), generator=draw)
    return list(zip(x.split(8), y.split(8), strict=True))


def pictures(view: bool = False, **options: Any) -> Objective:
    return Objective(convnet(view), cross_entropy, images(), **options)

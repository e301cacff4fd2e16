"""Objectives whose landscapes are known, or whose layers are of every kind."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin.diagnostics import Objective, directions
from flatmin.diagnostics.landscape import Line, Plane
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


WAYS = ["loop", "stacked", "threads"]


def two(objective: Objective) -> tuple[list[Tensor], list[Tensor]]:
    return directions.random(objective, 0), directions.random(objective, 1)


def losses(record: Line | Plane) -> Tensor:
    return torch.tensor(record.losses, dtype=torch.float64)


def by_hand(objective: Objective, u: list[Tensor], v: list[Tensor], at: Any) -> Tensor:
    """The loop that everybody writes, on a copy of the model."""
    rows = []
    for b in at:
        for a in at:
            model = copy.deepcopy(objective.model)
            moving = [p for p in model.parameters() if p.requires_grad]
            with torch.no_grad():
                for p, x, y in zip(moving, u, v, strict=True):
                    p.copy_(p + a * x + b * y)
                mean: Any = objective.criterion
                total = sum(len(t) * mean(model(x), t) for x, t in objective.data)
            rows.append(total / objective.n)
    return torch.stack(rows).view(len(at), len(at))


def same(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


@contextmanager
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        yield
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def images_flat(n: int) -> list[tuple[Tensor, Tensor]]:
    return [batch(torch.float64, n)]

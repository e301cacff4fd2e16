"""Models that SAM trains, with averages beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from flatmin import SAM
from flatmin.averaging import Average

Batches = list[tuple[Tensor, Tensor]]


def network() -> nn.Sequential:
    torch.manual_seed(2)
    layers = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2)
    return nn.Sequential(*layers, nn.Linear(6, 3)).double()


def stream(n: int, dtype: torch.dtype = torch.float64) -> Batches:
    draw = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(8, 5, generator=draw, dtype=torch.float64).to(dtype),
            torch.randint(3, (8,), generator=draw),
        )
        for _ in range(n)
    ]


def sam(model: nn.Module) -> SAM:
    return SAM(SGD(model.parameters(), lr=0.1, momentum=0.9), model, rho=0.1)


def step(optimizer: SAM, model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    for _ in optimizer.probes():
        F.cross_entropy(model(batch[0]).float(), batch[1]).backward()
    optimizer.step()


def train(model: nn.Module, averages: list[Any], n: int = 7) -> list[dict[str, Tensor]]:
    """``n`` steps of SAM with averages beside it; the weights after each step."""
    optimizer, seen = sam(model), []
    for batch in stream(n, next(model.parameters()).dtype):
        step(optimizer, model, batch)
        for average in averages:
            average.update()
        seen.append(copies(model))
    return seen


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def seen_in(average: Average) -> dict[str, Tensor]:
    with average.applied():
        return copies(average.model)

"""A model whose state changes in every pass, and ways in which it changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flatmin import SAM

Change = Callable[[Any, Tensor], "Tensor | float"]


class Stateful(nn.Module):
    """Scales its input by what ``change`` returns, which changes ``self.state``."""

    def __init__(self, state: Any, change: Change) -> None:
        super().__init__()
        self.lift, self.head = nn.Linear(4, 5), nn.Linear(5, 2)
        self.state = state
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.lift(x))
        return self.head(y * self.change(self, y.detach()))


def append(m: Any, y: Tensor) -> float:
    m.state.append(y.mean().item())
    return 1 + sum(m.state)


def pop(m: Any, y: Tensor) -> float:
    return m.state.pop()


def key(m: Any, y: Tensor) -> float:
    m.state[len(m.state)] = y.mean().item()
    return 1.0 + len(m.state)


def array(m: Any, y: Tensor) -> float:
    m.state += y.mean().item()
    return 1.0 + float(m.state.sum())


def run(model: nn.Module) -> SAM:
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=0.3)
    for _ in optimizer.probes():
        model(torch.ones(2, 4)).square().mean().backward()
    optimizer.step()
    return optimizer

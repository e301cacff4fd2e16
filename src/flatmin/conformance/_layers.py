"""Layers that a forward pass changes, in other ways than BatchNorm."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Table(nn.Module):
    """A table that grows with the longest input, as in rotary embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.table: Tensor
        self.register_buffer("table", torch.empty(0).double(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply every row by its entry."""
        if len(x) > self.length:
            self.length = len(x)
            self.table = torch.arange(len(x)).double().cos()
        return x * self.table[: len(x), None]


class Initialised(nn.Module):
    """Takes its offset from the first batch and then sets a flag, as ActNorm does."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = False
        self.offset: Tensor
        self.register_buffer("offset", torch.zeros(5).double())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` minus the offset."""
        if not self.ready:
            self.ready = True
            self.offset.copy_(x.mean(0))
        return x - self.offset


class Averaged(nn.Module):
    """A running mean that is a Python float."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` minus the mean."""
        self.mean = 0.5 * self.mean + 0.5 * x.mean().item()
        return x - self.mean


class Observer(nn.Module):
    """Resizes its buffer in place, to the number of features in the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.low: Tensor
        self.register_buffer("low", torch.empty(0).double())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` minus a running mean of the least values."""
        least = x.detach().amin(0)
        if len(self.low) == 0:
            self.low.resize_(least.shape).copy_(least)
        self.low.lerp_(least, 0.5)
        return x - self.low


class Recording(nn.Module):
    """A buffer that every pass replaces by a longer one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(1).double())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus the mean of the recorded values."""
        self.seen = torch.cat([self.seen, x.detach().mean().reshape(1)])
        return x + self.seen.mean()


class Centred(nn.Module):
    """A layer with weights and a running mean that TorchScript can compile."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 8).double()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(8).double())

    def forward(self, x: Tensor) -> Tensor:
        """Return features minus their running mean."""
        y = torch.tanh(self.linear(x))
        self.mean.mul_(0.5).add_(y.detach().mean(0), alpha=0.5)
        return y - self.mean


class Teacher(nn.Module):
    """A layer and its slow average, which has no gradient; forward updates it."""

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.Linear(5, 8).double()
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the product of both layers' features."""
        y = torch.tanh(self.online(x)) * torch.tanh(self.target(x))
        with torch.no_grad():
            for slow, fast in zip(
                self.target.parameters(), self.online.parameters(), strict=True
            ):
                slow.lerp_(fast, 0.1)
        return y

"""A net, 25 batches, and a base optimizer twice: torch's and the written-out one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import Optimizer

from flatmin import SAM
from tests.problems import Batch
from tests.reference.ball import Loss
from tests.reference.bases import AdamW, Sgd
from tests.reference.chosen import Each

STEPS = 25
BETAS = (0.9, 0.99)

#: For each group its radius over that of the method, and its weight decay.
ONE = ((1.0, 1.0), (1e-3, 1e-3))
TWO = ((1.0, 0.3), (1e-3, 0.05))


def batch_of(step: int) -> Batch:
    draw = torch.Generator().manual_seed(step)
    x = torch.randn(12, 6, generator=draw, dtype=torch.float64)
    return x, torch.randint(3, (12,), generator=draw)


def net() -> nn.Sequential:
    """Weights of two and three axes, norm layers, biases; nothing random."""
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.Unflatten(1, (2, 4)),
        nn.Conv1d(2, 4, 2),
        nn.GroupNorm(1, 4),
        nn.Tanh(),
        nn.Flatten(),
        nn.LayerNorm(12),
        nn.Linear(12, 3),
    ).double()


@dataclass
class Pair:
    """A net with a base of torch's, and the same for a reference."""

    kind: str = "sgd"
    groups: tuple[tuple[float, float], tuple[float, float]] = ONE
    rho: float = 0.1
    lr: float = 0.05

    def __post_init__(self) -> None:
        self.net = net()
        with torch.no_grad():
            for p in self.net.parameters():
                p.add_(0.1 * torch.randn_like(p))
        self.start = [p.detach().clone() for p in self.net.parameters()]
        self.names = [name for name, _ in self.net.named_parameters()]
        shares, decays = self.groups
        self.rhos = self._spread(tuple(self.rho * share for share in shares))
        self.decays = self._spread(decays)
        self.losses = [self._loss(k) for k in range(STEPS)]
        self.base = self._base()
        rates = [self.lr] * len(self.start)
        self.reference: Sgd | AdamW = (
            Sgd(rates, 0.9, self.decays)
            if self.kind == "sgd"
            else AdamW(rates, BETAS, 1e-8, self.decays)
        )

    def _spread(self, pair: tuple[float, ...]) -> list[float]:
        """One value per parameter; the last four make up the second group."""
        first = len(self.start) - 4
        return [pair[0]] * first + [pair[1]] * 4

    def _base(self) -> Optimizer:
        ps = list(self.net.parameters())
        groups = [
            {"params": part, "sam_rho": self.rhos[i], "weight_decay": self.decays[i]}
            for part, i in ((ps[:-4], 0), (ps[-4:], -1))
        ]
        if self.kind == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=0.9)
        return torch.optim.AdamW(groups, lr=self.lr, betas=BETAS, eps=1e-8)

    def _loss(self, step: int) -> Loss:
        x, y = batch_of(step)

        def loss(w: list[Tensor]) -> Tensor:
            named = dict(zip(self.names, w, strict=True))
            return F.cross_entropy(functional_call(self.net, named, (x,)), y)

        return loss

    def train(self, optimizer: SAM) -> None:
        """All the steps."""
        for k in range(STEPS):
            x, y = batch_of(k)
            for _ in optimizer.probes():
                F.cross_entropy(self.net(x), y).backward()
            optimizer.step()

    def check(self, w: list[Tensor], state: dict[str, list[Tensor]]) -> None:
        """Weights, the base's state, and the method's under these names."""
        state = {**self._expected(), **state}
        close(list(self.net.parameters()), w)
        for name, values in state.items():
            close([self.base.state[p][name] for p in self.net.parameters()], values)

    def _expected(self) -> dict[str, list[Tensor]]:
        if isinstance(self.reference, Sgd):
            return {"momentum_buffer": self.reference.m}
        return {"exp_avg": self.reference.m, "exp_avg_sq": self.reference.v}


def close(mine: list[Tensor], other: list[Tensor]) -> None:
    """To ten digits of the largest entry of each tensor."""
    for a, b in zip(mine, other, strict=True):
        size = float(b.abs().max())
        assert size > 0
        torch.testing.assert_close(a.detach(), b, rtol=0, atol=1e-10 * size)


def pair_of(kind: str, groups: Any, rho: float = 0.1) -> Pair:
    return Pair(kind, groups, rho, 0.05 if kind == "sgd" else 0.01)


def each_of(pair: Pair, step: int) -> Each:
    x, y = batch_of(step)

    def each(w: list[Tensor]) -> Tensor:
        named = dict(zip(pair.names, w, strict=True))
        out = functional_call(pair.net, named, (x,))
        return F.cross_entropy(out, y, reduction="none")

    return each


def passes(optimizer: SAM, net: nn.Module, step: int) -> Iterator[list[Tensor]]:
    """A step; yields how far each pass was from ``w``."""
    w = [p.detach().clone() for p in net.parameters()]
    for probe in optimizer.probes():
        yield [p.detach() - t for p, t in zip(net.parameters(), w, strict=True)]
        x, y = probe.take(*batch_of(step))
        probe.backward(F.cross_entropy(net(x), y, reduction="none"))
    optimizer.step()

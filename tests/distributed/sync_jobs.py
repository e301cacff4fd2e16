"""BatchNorm whose statistics are those of all ranks, as SyncBatchNorm's on GPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP

from flatmin import SAM
from flatmin.methods import METHODS
from tests.distributed.jobs import RHO, batches, part, scope_named, sgd


class SyncedNorm(nn.BatchNorm1d):
    """torch's own has no CPU kernel; this communicates in every forward pass, too."""

    def forward(self, input: Tensor) -> Tensor:
        n = dist.get_world_size()
        sums = torch.stack([input.mean(0), input.square().mean(0)])
        mean, square = all_reduce(sums) / n
        variance = square - mean.square()
        if self.running_mean is not None and self.running_var is not None:
            examples = n * len(input)
            unbiased = variance.detach() * examples / (examples - 1)
            self.running_mean.lerp_(mean.detach(), 0.1)
            self.running_var.lerp_(unbiased, 0.1)
        return (input - mean) / (variance + self.eps).sqrt() * self.weight + self.bias


def network(norm: type[nn.BatchNorm1d] | type[nn.Identity]) -> nn.Sequential:
    torch.manual_seed(1)
    parts = nn.Linear(5, 8), norm(8), nn.Tanh(), nn.Linear(8, 3)
    return nn.Sequential(*parts).double()


def synced(rank: int, scope: str) -> dict[str, list[Any]]:
    """Four steps, each rank with its half of the batch."""
    model = DDP(network(SyncedNorm))
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope_named(scope, rank))
    for x, y in batches(4):
        for _ in optimizer.probes():
            cross_entropy(model(part(rank, x)), part(rank, y)).backward()
        optimizer.step()
    return state_of(model.module)


def statistics_at_first(rank: int, name: str) -> list[Any]:
    """BatchNorm's running mean as the first forward pass of each step finds it."""
    model = DDP(network(nn.BatchNorm1d))
    optimizer = METHODS[name].build(sgd(model), model, rho=RHO)
    norm, seen = model.module[1], []
    assert isinstance(norm, nn.BatchNorm1d)

    def note(module: nn.Module, _: object) -> None:
        assert isinstance(module, nn.BatchNorm1d)
        assert module.running_mean is not None
        seen.append(module.running_mean.tolist())

    for x, y in batches(4):
        with norm.register_forward_pre_hook(note):
            for _ in optimizer.probes():
                cross_entropy(model(part(rank, x)), part(rank, y)).backward()
        optimizer.step()
    return seen[::2]


def state_of(model: nn.Module) -> dict[str, list[Any]]:
    named = model.state_dict().items()
    return {k: v.tolist() for k, v in named if v.is_floating_point()}

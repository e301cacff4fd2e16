"""What ranks do with uneven numbers of batches."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP

from flatmin import SAM
from tests.distributed.jobs import batches, part, scope_named, weights
from tests.distributed.method_jobs import network
from tests.methods.table import built


def steps(optimizer: SAM, model: nn.Module, rank: int, n: int) -> None:
    for x, y in batches(n):
        for probe in optimizer.probes():
            inputs, targets = probe.take(part(rank, x), part(rank, y))
            losses = cross_entropy(model(inputs), targets, reduction="none")
            probe.backward(losses)
        optimizer.step()


def refused(rank: int, name: str, scope: str) -> tuple[str, list[Any], list[Any]]:
    """What is said inside of ``join()``, and the weights before and after."""
    model = DDP(network())
    optimizer = built(name, model, scope=scope_named(scope, rank))
    before = weights(model)
    try:
        with model.join():
            steps(optimizer, model, rank, 2 if rank == 0 else 4)
    except RuntimeError as error:
        return str(error), before, weights(model)
    return "", before, weights(model)


def joined(rank: int, name: str, scope: str) -> tuple[list[Any], list[Any]]:
    """The weights before and after uneven inputs."""
    model = DDP(network())
    optimizer = built(name, model, scope=scope_named(scope, rank))
    before = weights(model)
    with model.join():
        steps(optimizer, model, rank, 2 if rank == 0 else 4)
    return before, weights(model)

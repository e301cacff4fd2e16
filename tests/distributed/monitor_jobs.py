"""What ranks do that watch a model in DistributedDataParallel while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP

from flatmin import SAM
from flatmin.core import World
from flatmin.diagnostics import Monitor, Objective
from tests.distributed.jobs import RHO, batches, network, part, sgd
from tests.distributed.ranks import WORLD_SIZE
from tests.distributed.wrapped_jobs import Held

STEPS, EVERY = 5, 2


def watched(rank: int, jsonl: Path, board: Path) -> list[dict[str, Any]]:
    """Records of a run whose data the ranks share, in unequal parts."""
    model = DDP(network())
    optimizer = SAM(sgd(model), model, rho=RHO, scope=World(), track=True)
    mine = batches(3)[:1] if rank == 0 else batches(3)[1:]
    objective = Objective(model, cross_entropy, mine, group=dist.group.WORLD)
    monitor = Monitor(objective, every=EVERY, rho=RHO, jsonl=jsonl, tensorboard=board)
    return run(monitor, optimizer, model, rank)


def alone() -> list[dict[str, Any]]:
    """Those of one process that has all of the data."""
    model = network()
    optimizer = SAM(sgd(model), model, rho=RHO, track=True)
    objective = Objective(model, cross_entropy, batches(3))
    monitor = Monitor(objective, every=EVERY, rho=RHO)
    return run(monitor, optimizer, model, None)


def run(
    monitor: Monitor, optimizer: SAM, model: nn.Module, rank: int | None
) -> list[dict[str, Any]]:
    for step, (x, y) in enumerate(batches(STEPS)):
        mine = (x, y) if rank is None else (part(rank, x), part(rank, y))
        for probe in optimizer.probes():
            loss = cross_entropy(model(mine[0]), mine[1])
            probe.loss = loss
            loss.backward()
        optimizer.step()
        monitor(step, optimizer)
    monitor.close()
    return monitor.records


def one_lacks_a_number(rank: int) -> list[dict[str, Any]]:
    """Rank 1 does not say what its losses are."""
    model = DDP(network())
    optimizer = SAM(sgd(model), model, rho=RHO)
    objective = Objective(model, cross_entropy, batches(1), group=dist.group.WORLD)
    monitor = Monitor(objective, lambda_max=False)
    x, y = batches(1)[0]
    for probe in optimizer.probes():
        loss = cross_entropy(model(part(rank, x)), part(rank, y))
        if rank == 0:
            probe.loss = loss
        loss.backward()
    monitor(0, optimizer)
    return [monitor.records[0], {"loss": optimizer.statistics.loss}]


def failing_on_one(rank: int) -> list[dict[str, Any]]:
    """Rank 1's data breaks in the second record; the others wait for nobody."""
    model = DDP(network())
    objective = Objective(model, cross_entropy, batches(1), group=dist.group.WORLD)
    monitor = Monitor(objective, every=1)
    monitor(0)
    good, forward = objective.data, objective.forward
    if rank == 1:

        def broken(*_: object) -> Any:
            raise RuntimeError("broken")

        objective.forward = broken
    monitor(1)
    objective.data, objective.forward = good, forward
    monitor(2)
    return monitor.records


def measured_inside_a_wrapper(rank: int) -> str:
    del rank
    try:
        Objective(Held(DDP(network())), cross_entropy, batches(WORLD_SIZE))
    except ValueError as refused:
        return str(refused)
    return ""

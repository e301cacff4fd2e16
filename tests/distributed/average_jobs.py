"""What ranks do with averages of replicas and of shards."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from flatmin import SAM
from flatmin.averaging import EMA
from flatmin.averaging._tensors import tensors_of
from tests.distributed.jobs import RHO, batches, look, network, part, sgd
from tests.distributed.shard_jobs import whole, wrapped

STEPS, DECAY = 6, 0.8


def averaged(rank: int, kind: str) -> dict[str, Any]:
    """Average and weights after a training; the average was reloaded half-way."""
    model = model_of(kind)
    scope = None if kind == "one" else "world"
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope)
    average = EMA(model, DECAY)
    data = batches(STEPS, dtype=torch.float64)
    for k, (x, y) in enumerate(data):
        mine = (x, y) if kind in ("one", "tensor") else (part(rank, x), part(rank, y))
        for _ in optimizer.probes():
            cross_entropy(model(mine[0]), mine[1]).backward()
        optimizer.step()
        if k % 2:
            look(model, x)
        average.update()
        look(model, x)
        if k == STEPS // 2:
            state = copy.deepcopy(average.state_dict())
            average = EMA(model, DECAY)
            average.load_state_dict(state)
    before = values(model)
    x, _ = data[-1]
    output = look(model, x)
    with average.applied():
        lent = values(model)
        outputs = [look(model, x) for _ in range(2)]
    return {
        "average": lent,
        "weights": before,
        "outputs": outputs,
        "kept": values(model) == before and look(model, x) == output,
    }


def model_of(kind: str) -> nn.Module:
    if kind == "one":
        return network(torch.float64)
    if kind == "DDP":
        return DistributedDataParallel(network(torch.float64))
    return wrapped(kind, torch.float64)


def values(model: nn.Module) -> list[Any]:
    parameters: list[Tensor] = list(tensors_of(model).values())
    return [whole(p) for p in parameters]

"""Another SAM on two processes, and ours with both scopes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.optim import SGD

from flatmin import SAM
from tests.conformance.peers.two_call import TwoCallSAM
from tests.distributed.jobs import LR, MOMENTUM, RHO, batches, network, part, sgd


def flat(model: nn.Module) -> list[float]:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()


def two_calls(rank: int, steps: int) -> list[float]:
    model = DDP(network())
    ps = model.parameters()
    optimizer = TwoCallSAM(ps, SGD, rho=RHO, lr=LR, momentum=MOMENTUM)
    for x, y in batches(steps):
        for call in (optimizer.first_step, optimizer.second_step):
            cross_entropy(model(part(rank, x)), part(rank, y)).backward()
            call(zero_grad=True)
    return flat(model)


def probes(rank: int, steps: int, scope: Literal["replica", "world"]) -> list[float]:
    model = DDP(network())
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope)
    for x, y in batches(steps):
        for _ in optimizer.probes():
            cross_entropy(model(part(rank, x)), part(rank, y)).backward()
        optimizer.step()
    return flat(model)

"""What ranks do with a model that leaves parameters out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP

from flatmin import SAM
from tests.distributed.jobs import (
    RHO,
    batches,
    network,
    part,
    scope_named,
    sgd,
    weights,
)


class Branching(nn.Module):
    """Uses its second half if asked to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b = network(), nn.Linear(5, 3, dtype=torch.float64)

    def forward(self, x: Tensor, both: bool) -> Tensor:
        return self.a(x) + (self.b(x) if both else 0)


#: Whether a rank uses both halves in a pass of a step.
USES = {
    "every second step": lambda rank, step, index: step % 2 == 0,
    "one rank": lambda rank, step, index: rank == 0 or step % 2 == 0,
    "second pass": lambda rank, step, index: step != 1 or index == 1,
    "first pass": lambda rank, step, index: step != 1 or index == 0,
}


def trained(rank: int, scope: str, use: str, steps: int) -> dict[str, Any]:
    """Weights, and after which steps the second half had a gradient."""
    model = DDP(Branching(), find_unused_parameters=True)
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope_named(scope, rank))
    there = []
    for k, (x, y) in enumerate(batches(steps)):
        for probe in optimizer.probes():
            both = USES[use](rank, k, probe.index)
            cross_entropy(model(part(rank, x), both), part(rank, y)).backward()
        there.append(model.module.b.weight.grad is not None)
        optimizer.step()
    return {"weights": weights(model), "there": there}


def left_out_in_the_second_pass(rank: int, scope: str) -> dict[str, Any]:
    """What torch says, and whether the weights are where the step began."""
    model = DDP(Branching(), find_unused_parameters=True)
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope_named(scope, rank))
    before, said = weights(model), []
    for x, y in batches(2):
        try:
            for probe in optimizer.probes():
                both = probe.index == 0
                cross_entropy(model(part(rank, x), both), part(rank, y)).backward()
        except RuntimeError as error:
            said.append(str(error))
    return {"said": said, "restored": weights(model) == before}

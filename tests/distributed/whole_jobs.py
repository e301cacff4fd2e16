"""What ranks do with FSDP2 whose weights stay whole for a while."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.distributed.fsdp import FSDPModule
from torch.nn.functional import cross_entropy

from flatmin import SAM, diagnostics
from tests.distributed.jobs import RHO, batches, look, network, part, sgd
from tests.distributed.ranks import WORLD_SIZE
from tests.distributed.shard_jobs import wrapped
from tests.problems import refusal

#: When a step looks at the model without a backward pass.
MOMENTS = ("before the loop", "in the loop", "before the step", "after the step")


def trained(
    rank: int, kind: str, moment: str, check: Literal["replay"] | None
) -> list[Any]:
    """What the model says after each step."""
    model = network(torch.float64) if kind == "one" else wrapped(kind, torch.float64)
    optimizer = SAM(sgd(model), model, rho=RHO, check=check)
    said: list[Any] = []
    data = batches(4, dtype=torch.float64)
    for x, y in data:
        mine = (x, y) if kind == "one" else (part(rank, x), part(rank, y))
        if moment == "before the loop":
            look(model, x)
        for _ in optimizer.probes():
            cross_entropy(model(mine[0]), mine[1]).backward()
            if moment == "in the loop":
                look(model, x)
        if moment == "before the step":
            look(model, x)
        optimizer.step()
        if moment == "after the step":
            said.append(look(model, x))
    return [*said, look(model, data[-1][0])]


def accumulated(rank: int, kind: str) -> list[Any]:
    """Micro-batches with an ascent each, between which weights stay whole."""
    model = network(torch.float64) if kind == "one" else wrapped(kind, torch.float64)
    if isinstance(model, FSDPModule):
        model.set_reshard_after_backward(False)
    optimizer = SAM(sgd(model), model, rho=RHO)
    data = batches(4, dtype=torch.float64)
    for x, y in data:
        sharers = range(WORLD_SIZE) if kind == "one" else [rank]
        optimizer.zero_grad()
        for half in range(2):
            a, b = (
                torch.cat([part(r, t).chunk(2)[half] for r in sharers]) for t in (x, y)
            )
            for _ in optimizer.probes(accumulate=True):
                (cross_entropy(model(a), b) / 2).backward()
        optimizer.step()
    return look(model, data[-1][0])


def interrupted(rank: int, kind: str) -> list[Any]:
    """What the model says before, and after a loop that ended at w + eps."""
    model = wrapped(kind, torch.float64)
    optimizer = SAM(sgd(model), model, rho=RHO)
    x, y = batches(1, dtype=torch.float64)[0]
    before = look(model, x)
    try:
        for probe in optimizer.probes():
            if probe.perturbed:
                look(model, x)
                raise InterruptedError
            cross_entropy(model(part(rank, x)), part(rank, y)).backward()
    except InterruptedError:
        return [before, look(model, x)]
    return []


def refused(rank: int) -> dict[str, str]:
    """What is said of a base, and of a measure, after a forward pass alone."""
    del rank
    x, y = batches(1)[0]
    found: dict[str, str] = {}
    for kind in ("root", "layers"):
        model = wrapped(kind, torch.float32)
        look(model, x.float())
        base = sgd(model)
        found[kind] = refusal(
            lambda m=model: diagnostics.Objective(m, cross_entropy, [(x.float(), y)]),
            ValueError,
        )
        if kind == "root":
            found["base"] = refusal(lambda m=model, b=base: SAM(b, m), ValueError)
    return found

"""What ranks do with sharded models whose gradients overflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy

from flatmin import SAM
from flatmin.core import LpBall, TwoPoint, always
from tests.distributed.jobs import RHO, batches, not_the_second, part, sgd
from tests.distributed.shard_jobs import locally, whole, wrapped
from tests.problems import gradient


@dataclass(frozen=True)
class Second:
    """What is special about the second of three steps.

    Attributes:
        bad: the passes in which a gradient has one bad entry.
        value: what that entry is.
        where: the rank that holds it.
        plain: it does not climb.
        skipped: there is none.
    """

    bad: tuple[int, ...] = ()
    value: float = torch.inf
    where: int = 1
    plain: bool = False
    skipped: bool = False


def spoil(rank: int, kind: str, model: nn.Module, second: Second) -> None:
    """One entry of one shard, on every process that holds this shard."""
    if rank == second.where or kind == "copied":
        locally(gradient(next(model.parameters())))[0, 0] = second.value


def three_steps(
    rank: int, kind: str, second: Second, p: float, scaled: bool
) -> dict[str, Any]:
    """Weights, restored bit for bit or not, the scale, and what did not climb."""
    model = wrapped(kind, torch.float32)
    gate = not_the_second if second.plain else always
    method = TwoPoint(metric=LpBall(p), gate=gate)
    optimizer = SAM(sgd(model), model, rho=RHO, method=method)
    scaler = GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
    kept = True
    for k, (x, y) in enumerate(batches(3, dtype=torch.float32)):
        if k == 1 and second.skipped:
            continue
        before = [locally(w).clone() for w in model.parameters()]
        for probe in optimizer.probes():
            loss = cross_entropy(model(part(rank, x)), part(rank, y))
            scaler.scale(loss).backward()
            if k == 1 and probe.index in second.bad:
                spoil(rank, kind, model, second)
        after = [locally(w) for w in model.parameters()]
        kept &= all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        scaler.step(optimizer)
        scaler.update()
    return {
        "weights": [whole(w) for w in model.parameters()],
        "kept": kept,
        "scale": scaler.get_scale(),
        "unperturbed": optimizer.unperturbed_steps,
    }

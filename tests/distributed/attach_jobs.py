"""What ranks do with a SAM that was built before its model was wrapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP

from flatmin import SAM
from tests.distributed.jobs import RHO, batches, network, part, sgd, weights


def steps(rank: int, model: nn.Module, optimizer: SAM, accumulate: bool) -> None:
    for x, y in batches(3):
        optimizer.zero_grad()
        parts = zip(part(rank, x).split(3), part(rank, y).split(3), strict=True)
        if accumulate:
            for small_x, small_y in parts:
                for _ in optimizer.probes(accumulate=True):
                    (cross_entropy(model(small_x), small_y) / 2).backward()
        else:
            for _ in optimizer.probes():
                cross_entropy(model(part(rank, x)), part(rank, y)).backward()
        optimizer.step()


def attached(rank: int, late: bool, scope: Any, accumulate: bool) -> list[Any]:
    """The weights after three steps, SAM being built before or after the wrapper."""
    raw = network()
    if late:
        optimizer = SAM(
            sgd(raw), raw, rho=RHO, scope=None if scope == "world" else scope
        )
        optimizer.chosen_scope = scope
        model = DDP(raw)
        optimizer.attach(model)
    else:
        model = DDP(raw)
        optimizer = SAM(sgd(model), model, rho=RHO, scope=scope)
    steps(rank, model, optimizer, accumulate)
    return [type(optimizer.scope).__name__, weights(raw)]


class Holding(nn.Module):
    """Runs a part of itself."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "itself": DDP,
    "a part of what is wrapped": lambda raw: DDP(Holding(raw)),
    "compiled within": lambda raw: DDP(compiled(raw)),
    "compiled around": lambda raw: compiled(DDP(raw)),
}


def hooks() -> int:
    return len(torch.nn.modules.module._global_forward_pre_hooks)


def other_wrapped(rank: int) -> list[Any]:
    """A wrapped module that is none of SAM's may run in the loop."""
    critic, raw = DDP(nn.Linear(3, 1).double()), network()
    optimizer = SAM(sgd(raw), raw, rho=RHO)
    for x, _ in batches(1):
        for _ in optimizer.probes():
            critic(raw(part(rank, x))).mean().backward()
        optimizer.step()
    return weights(raw)


def not_attached(rank: int, wrapper: str, accumulate: bool) -> list[Any]:
    """What SAM says of a wrapper it was not given; what it has done by then."""
    raw = network()
    before = weights(raw)
    optimizer = SAM(sgd(raw), raw, rho=RHO)
    model = WRAPPERS[wrapper](raw)
    try:
        steps(rank, model, optimizer, accumulate)
    except RuntimeError as refused:
        return [str(refused), weights(raw) == before, hooks()]
    return ["", False, 0]


def by_hand(rank: int) -> list[Any]:
    """A model that nobody wraps, whose owner averages gradients."""
    model = network()
    optimizer = SAM(sgd(model), model, rho=RHO)
    for x, y in batches(2):
        for _ in optimizer.probes():
            cross_entropy(model(part(rank, x)), part(rank, y)).backward()
        for p in model.parameters():
            assert p.grad is not None
            torch.distributed.all_reduce(p.grad)
            p.grad /= 2
        optimizer.step()
    return weights(model)


def sharded(rank: int, when: str) -> str:
    """What SAM says of FullyShardedDataParallel."""
    del rank
    raw = network(torch.float32)
    try:
        if when == "before":
            model = FullyShardedDataParallel(raw, device_id=torch.device("cpu"))
            SAM(sgd(model), model)
        elif when == "within":
            model = Holding(
                FullyShardedDataParallel(raw, device_id=torch.device("cpu"))
            )
            SAM(sgd(model), model)
        else:
            optimizer = SAM(sgd(raw), raw)
            model = FullyShardedDataParallel(
                raw, device_id=torch.device("cpu"), use_orig_params=True
            )
            for _ in optimizer.probes():
                model(torch.ones(2, 5)).sum().backward()
    except (RuntimeError, ValueError) as refused:
        return f"{type(refused).__name__}: {refused}"
    return ""

"""What ranks do with DistributedDataParallel inside of another module."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP

from flatmin import SAM, gsam
from tests.distributed.jobs import RHO, batches, part, scope_named, sgd, weights
from tests.distributed.method_jobs import network, steps
from tests.methods.table import built


class Held(nn.Module):
    """A wrapper whose own class says nothing."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Twice(nn.Module):
    """Two models that are averaged separately."""

    def __init__(self, **second: Any) -> None:
        super().__init__()
        parts = network()
        self.first, self.second = DDP(parts[:3]), DDP(parts[3], **second)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class OwnHead(nn.Module):
    """A head that nobody averages."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = DDP(network()[:3])
        self.head = nn.Linear(8, width).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda model: model,
    "held": Held,
    "deep": lambda model: nn.Sequential(Held(model)),
    "compiled": compiled,
}


def trained(
    rank: int, wrapper: str, name: str, scope: str, ddp: dict[str, Any]
) -> tuple[list[Any], int]:
    """The weights after four steps, and how many gradients were averaged."""
    averaged = 0

    @wraps(allreduce_hook)
    def hook(state, bucket):  # DDP refuses annotations other than its own
        nonlocal averaged
        averaged += bucket.buffer().numel()
        return allreduce_hook(state, bucket)

    inner = DDP(network(), **ddp)
    inner.register_comm_hook(None, hook)
    model = WRAPPERS[wrapper](inner)
    optimizer = built(name, model, scope=scope_named(scope, rank))
    steps(optimizer, model, rank, 4)
    return weights(model), averaged


def twice(rank: int, scope: str) -> list[Any]:
    """The weights of two parts, and how many gradients of each were averaged."""
    averaged = [0, 0]
    model = Twice()
    for k, replica in enumerate((model.first, model.second)):

        @wraps(allreduce_hook)
        def hook(state, bucket, k=k):  # DDP refuses annotations other than its own
            averaged[k] += bucket.buffer().numel()
            return allreduce_hook(state, bucket)

        replica.register_comm_hook(None, hook)
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope_named(scope, rank))
    steps(optimizer, model, rank, 4)
    sizes = [sum(p.numel() for p in m.parameters()) for m in model.children()]
    return [weights(model), [n / size for n, size in zip(averaged, sizes, strict=True)]]


def once(rank: int, scope: str) -> list[Any]:
    """The same model, averaged as one."""
    model = DDP(network())
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope_named(scope, rank))
    steps(optimizer, model, rank, 4)
    return weights(model)


def own_head(rank: int, widths: tuple[int, int]) -> list[list[Any]]:
    """The weights of trunk and head after two steps that average by themselves."""
    model = OwnHead(widths[rank])
    optimizer = gsam(sgd(model), model, rho=RHO, alpha=0.3)
    for x, y in batches(2):
        for _ in optimizer.probes():
            cross_entropy(model(part(rank, x)), part(rank, y)).backward()
        optimizer.step()
    return [weights(model.trunk), weights(model.head)]


def accumulate_inside_no_sync(rank: int) -> str:
    del rank
    inner = DDP(network())
    model = Held(inner)
    optimizer = SAM(sgd(model), model)
    try:
        with inner.no_sync():
            next(optimizer.probes(accumulate=True))
    except RuntimeError as refused:
        return str(refused)
    return ""


def join(rank: int) -> str:
    inner = DDP(network())
    model = Held(inner)
    optimizer = gsam(sgd(model), model)
    try:
        with inner.join():
            steps(optimizer, model, rank, 1)
    except RuntimeError as refused:
        return str(refused)
    return ""


def construct(rank: int, kind: str) -> str:
    """What SAM says about a model that it cannot share a perturbation for."""
    alone: list[Any] = [dist.new_group([k]) for k in range(2)]
    same: Any = dist.new_group([0, 1])
    model: nn.Module = {
        "static": lambda: Held(DDP(network(), static_graph=True)),
        "other processes": lambda: Twice(process_group=alone[rank]),
        "same processes": lambda: Twice(process_group=same),
    }[kind]()
    try:
        SAM(sgd(model), model)
    except ValueError as refused:
        return str(refused)
    return ""

"""What the ranks do; results go back as plain numbers and lists."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.optim import SGD

from flatmin import SAM
from flatmin.core import Group, Replica, Scope, Step, TwoPoint, World
from tests.distributed.ranks import WORLD_SIZE

RHO, LR, MOMENTUM, M = 0.2, 0.1, 0.9, 6
SCOPES = ("replica", "world", "group", "alone")


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def batches(
    steps: int, n: int = WORLD_SIZE * M, dtype: torch.dtype = torch.float64
) -> list[tuple[Tensor, Tensor]]:
    """The whole batch of every step; a rank takes its part of ``M`` examples."""
    generator = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(n, 5, generator=generator, dtype=dtype),
            torch.randint(3, (n,), generator=generator),
        )
        for _ in range(steps)
    ]


def sgd(model: nn.Module) -> SGD:
    return SGD(model.parameters(), lr=LR, momentum=MOMENTUM)


def scope_named(name: str, rank: int) -> Scope:
    if name == "replica":
        return Replica()
    if name == "world":
        return World()
    everyone: Any = dist.new_group(list(range(WORLD_SIZE)))
    singles: list[Any] = [dist.new_group([k]) for k in range(WORLD_SIZE)]
    return Group(everyone if name == "group" else singles[rank])


def part(rank: int, data: Tensor) -> Tensor:
    return data[rank * M : (rank + 1) * M]


def trained(
    rank: int, scope: str, steps: int, ddp: dict[str, Any], sam: dict[str, Any]
) -> list[Any]:
    """The weights after some steps, as nested lists."""
    dtype = sam.pop("dtype", torch.float64)
    hook = ddp.pop("hook", False)
    model = DDP(network(dtype), **ddp)
    if hook:
        model.register_comm_hook(None, allreduce_hook)
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope_named(scope, rank), **sam)
    for x, y in batches(steps, dtype=dtype):
        for probe in optimizer.probes():
            loss = cross_entropy(model(part(rank, x)), part(rank, y))
            probe.loss = loss
            loss.backward()
        optimizer.step()
    return weights(model)


def look(model: nn.Module, x: Tensor) -> list[Any]:
    """What the model says; FSDP2 keeps the weights of its root whole afterwards."""
    with torch.no_grad():
        return model(x).tolist()


def close(found: list[Any], wanted: list[Any]) -> None:
    """Assert that numbers are the same to 1e-12, list by list."""
    for a, b in zip(found, wanted, strict=True):
        x, y = (torch.tensor(v, dtype=torch.float64) for v in (a, b))
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


def weights(model: nn.Module) -> list[Any]:
    return [p.tolist() for p in model.parameters()]


def accumulated(rank: int, bucket_view: bool) -> list[Any]:
    """m-SAM with m = 3: each rank climbs twice per step."""
    model = DDP(network(), gradient_as_bucket_view=bucket_view)
    optimizer = SAM(sgd(model), model, rho=RHO)
    for x, y in batches(3):
        optimizer.zero_grad()
        parts = zip(part(rank, x).split(3), part(rank, y).split(3), strict=True)
        for small_x, small_y in parts:
            for _ in optimizer.probes(accumulate=True):
                (cross_entropy(model(small_x), small_y) / 2).backward()
        optimizer.step()
    return weights(model)


def accumulate_inside_no_sync(rank: int) -> str:
    del rank
    model = DDP(network())
    optimizer = SAM(sgd(model), model)
    try:
        with model.no_sync():
            next(optimizer.probes(accumulate=True))
    except RuntimeError as refused:
        return str(refused)
    return ""


def averaging(rank: int, scope: str) -> list[int]:
    """How many gradients were averaged: in SAM's step, and in a plain one."""
    counted = 0

    @wraps(allreduce_hook)
    def hook(state, bucket):  # DDP refuses annotations other than its own
        nonlocal counted
        counted += bucket.buffer().numel()
        return allreduce_hook(state, bucket)

    model = DDP(network())
    model.register_comm_hook(None, hook)
    x, y = batches(1)[0]
    cross_entropy(model(part(rank, x)), part(rank, y)).backward()
    plain, counted = counted, 0
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope_named(scope, rank))
    for _ in optimizer.probes():
        cross_entropy(model(part(rank, x)), part(rank, y)).backward()
    return [counted, plain]


def non_finite_on_one_rank(rank: int, scope: str, bad_pass: int) -> dict[str, Any]:
    """Rank 1 has an infinite gradient in one pass of the second of three steps."""
    model = DDP(network())
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope_named(scope, rank))
    for k, (x, y) in enumerate(batches(3)):
        for probe in optimizer.probes():
            loss = cross_entropy(model(part(rank, x)), part(rank, y))
            if k == 1 and rank == 1 and probe.index == bad_pass:
                loss = loss * torch.inf
            loss.backward()
        finite = all(
            bool(p.grad.isfinite().all())
            for p in model.parameters()
            if p.grad is not None
        )
        if finite:  # what GradScaler does
            optimizer.step()
    return {"weights": weights(model), "unperturbed": optimizer.unperturbed_steps}


def uneven(rank: int, scope: str) -> list[Any]:
    """Rank 0 has two batches, rank 1 has four."""
    model = DDP(network())
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope_named(scope, rank))
    with model.join():
        for x, y in batches(2 if rank == 0 else 4):
            for _ in optimizer.probes():
                cross_entropy(model(part(rank, x)), part(rank, y)).backward()
            optimizer.step()
    return weights(model)


def batch_norm(rank: int) -> list[list[Any]]:
    """Buffers after three steps of SAM, and after three forward passes at its ``w``."""
    model = DDP(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))
    optimizer = SAM(sgd(model), model, rho=RHO)
    twin = DDP(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))
    twin.load_state_dict(model.state_dict())
    for x, y in batches(3, dtype=torch.float32):
        with torch.no_grad():
            for p, q in zip(twin.parameters(), model.parameters(), strict=True):
                p.copy_(q)
        cross_entropy(twin(part(rank, x)), part(rank, y)).backward()
        for _ in optimizer.probes():
            cross_entropy(model(part(rank, x)), part(rank, y)).backward()
        optimizer.step()
    return [[b.tolist() for b in m.buffers()] for m in (model, twin)]


def cosines(rank: int, scope: str, bucket_view: bool) -> float:
    """``cos(g, g_eps)`` of a step, which needs both gradients at once."""
    model = DDP(network(), gradient_as_bucket_view=bucket_view)
    chosen = scope_named(scope, rank)
    optimizer = SAM(sgd(model), model, rho=RHO, scope=chosen, track=True)
    x, y = batches(1)[0]
    for warm_up in (True, False):
        for _ in optimizer.probes():
            cross_entropy(model(part(rank, x)), part(rank, y)).backward()
        if warm_up:
            optimizer.step()
    assert optimizer.statistics.cosine is not None
    return optimizer.statistics.cosine.item()


def not_the_second(step: Step) -> bool:
    return step.index != 1


def scaled(
    rank: int,
    scope: str,
    bad: tuple[int, ...] | None,
    plain_on: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Three steps under GradScaler; in the second, rank 1 overflows in the bad passes.

    Without any, the second step is left out, or is a plain one on some ranks.
    """
    model = DDP(network(torch.float32))
    method = TwoPoint(gate=not_the_second) if rank in plain_on else None
    chosen = scope_named(scope, rank)
    optimizer = SAM(sgd(model), model, rho=RHO, scope=chosen, method=method)
    scaler = GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)
    for k, (x, y) in enumerate(batches(3, dtype=torch.float32)):
        if bad is None and k == 1 and not plain_on:
            continue
        for probe in optimizer.probes():
            loss = cross_entropy(model(part(rank, x)), part(rank, y))
            overflows = k == 1 and rank == 1 and probe.index in (bad or ())
            scaler.scale(loss * torch.inf if overflows else loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return {"weights": weights(model), "scale": scaler.get_scale()}

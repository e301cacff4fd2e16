"""What ranks do with each of the methods; results go back as plain lists."""

from __future__ import annotations

from functools import wraps
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP

from flatmin import SAM
from flatmin.core import Scope, radii
from flatmin.core.stretch import Stretched
from tests.distributed import checkpoint_jobs
from tests.distributed.jobs import M, batches, part, scope_named
from tests.distributed.shard_jobs import mesh
from tests.distributed.shard_jobs import whole as gathered
from tests.methods.table import built, prepare, whole

STEPS = 10


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(5, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)
    ).double()


def data_of(step: int) -> tuple[Tensor, Tensor]:
    """Two steps in a row share a batch."""
    return batches(STEPS)[step // 2]


def in_turn(x: Tensor) -> Tensor:
    """The whole batch, such that its first half is the first half of every part."""
    half = M // 2
    return torch.cat([x[:half], x[M : M + half], x[half:M], x[M + half :]])


def losses_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model(x), y, reduction="none")


def steps(optimizer: SAM, model: nn.Module, rank: int | None, n: int = STEPS) -> None:
    """``rank`` None sees the whole batch."""
    for k in range(n):
        data = data_of(k)
        x, y = (in_turn(t) if rank is None else part(rank, t) for t in data)
        for probe in optimizer.probes():
            mine = probe.take(x, y)
            probe.backward(whole(probe, losses_of(model, *mine)))
        optimizer.step()


def outcome(optimizer: SAM, model: nn.Module) -> dict[str, Any]:
    """Weights, state by position and name, and what the groups carry."""
    state = [optimizer.state.get(p, {}) for p in model.parameters()]
    return {
        "weights": [gathered(p.detach()) for p in model.parameters()],
        "state": [
            {k: gathered(torch.as_tensor(v)) for k, v in s.items()} for s in state
        ],
        "groups": [
            {k: v for k, v in group.items() if k.startswith("sam_")}
            for group in optimizer.param_groups
        ],
    }


def replicated(rank: int, name: str, base: str, scope: str) -> dict[str, Any]:
    model = DDP(network())
    shared: Scope = scope_named(scope, rank)
    optimizer = built(name, model, base, scope=shared)
    steps(optimizer, model, rank)
    return outcome(optimizer, model)


def stretched(rank: int, name: str) -> dict[str, Any]:
    """Train with IRE around a method, whose vector may be this replica's own."""
    model = DDP(network())
    inner = built(name, model).method
    method = Stretched(0.3, 2, inner=inner, kappa=radii.times(10.0))
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    optimizer = SAM(base, model, rho=0.1, method=method)
    steps(optimizer, model, rank)
    return outcome(optimizer, model)


def one_process(name: str, base: str = "sgd") -> dict[str, Any]:
    model = network()
    optimizer = built(name, model, base)
    steps(optimizer, model, None)
    return outcome(optimizer, model)


def sharded(rank: int, name: str, base: str, kind: str) -> dict[str, Any]:
    model = network()
    prepare(name, model)
    optimizer = built(name, cut(model, kind), base)
    if kind == "tensor":
        steps(optimizer, model, None)
    else:
        steps(optimizer, model, rank)
    return outcome(optimizer, model)


def cut(model: nn.Sequential, kind: str) -> nn.Module:
    if kind == "tensor":
        # Rows of the one, columns of the other; the norm between them stays whole.
        first = ColwiseParallel(output_layouts=Replicate())
        plan = {"0": first, "3": RowwiseParallel(input_layouts=Replicate())}
        return parallelize_module(model, mesh("tp"), plan)
    for layer in (model[0], model[3]):
        fully_shard(layer, mesh=mesh("shard"))
    fully_shard(model, mesh=mesh("shard"))
    return model


def sharded_error(rank: int, name: str, kind: str) -> str:
    """What a method says that cannot work with sharded parameters."""
    try:
        sharded(rank, name, "sgd", kind)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def reductions(rank: int, name: str, scope: str, n: int) -> list[list[int]]:
    """For each step: gradients DDP averaged, and all-reduces of the scope's own."""
    averaged = 0

    @wraps(allreduce_hook)
    def hook(state, bucket):  # DDP refuses annotations other than its own
        nonlocal averaged
        averaged += bucket.buffer().numel()
        return allreduce_hook(state, bucket)

    model = DDP(network())
    model.register_comm_hook(None, hook)
    optimizer = built(name, model, scope=scope_named(scope, rank))
    size = sum(p.numel() for p in model.parameters())
    counts: list[list[int]] = []
    for k in range(n):
        x, y = (part(rank, t) for t in data_of(k))
        averaged = 0
        with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as own:
            for probe in optimizer.probes():
                mine = probe.take(x, y)
                probe.backward(whole(probe, losses_of(model, *mine)))
            # allreduce_hook of this version calls the same function.
            buckets = sum(call.kwargs.get("async_op", False) for call in own.mock_calls)
            counts.append([averaged // size, own.call_count - buckets])
        optimizer.step()
    return counts


def overflowing(rank: int, name: str, scope: str) -> dict[str, Any]:
    """In the fourth step, all passes of rank 1 overflow."""
    model = DDP(network())
    optimizer = built(name, model, scope=scope_named(scope, rank))
    scaler = GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)
    for k in range(7):
        x, y = (part(rank, t) for t in data_of(k))
        bang = torch.inf if k == 3 and rank == 1 else 1.0
        for probe in optimizer.probes(scaler=scaler):
            mine = probe.take(x, y)
            losses = whole(probe, losses_of(model, *mine) * bang)
            probe.backward(scaler.scale(losses))
        scaler.step(optimizer)
        scaler.update()
    return {**outcome(optimizer, model), "scale": scaler.get_scale()}


def save_sharded(rank: int, name: str, n: int, folder: str) -> None:
    model = network()
    optimizer = built(name, cut(model, "layers"))
    steps(optimizer, model, rank, n)
    checkpoint_jobs.save(model, optimizer, folder)


def continue_sharded(rank: int, name: str, n: int, folder: str) -> dict[str, Any]:
    model = network()
    optimizer = built(name, cut(model, "layers"))
    checkpoint_jobs.load(model, optimizer, folder)
    steps(optimizer, model, rank, n)
    return outcome(optimizer, model)

"""What four ranks do with models that are cut or copied along two axes."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP

from flatmin import SAM
from flatmin.core import Group, Step
from flatmin.core._joints import Filter
from flatmin.core._program import Gradients
from flatmin.core._ranking import highest
from flatmin.core._shards import share_of, whole_as
from flatmin.core.filters import outliers
from tests.distributed.checkpoint_jobs import load, save
from tests.distributed.jobs import RHO, M, batches, network, sgd, weights
from tests.distributed.shard_jobs import locally, whole

Plan = dict[str, ParallelStyle]

RANKS = 4
EXAMPLES = RANKS * M


@cache
def mesh(*names: str) -> DeviceMesh:
    shape = (RANKS,) if len(names) == 1 else (2, RANKS // 2)
    return init_device_mesh("cpu", shape, mesh_dim_names=names)


def layers_sharded(model: nn.Sequential, over: DeviceMesh) -> nn.Module:
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=over)
    fully_shard(model, mesh=over)
    return model


def hybrid_layers() -> nn.Module:
    return layers_sharded(network(), mesh("replicate", "shard"))


def hybrid_root() -> nn.Module:
    model = network()
    fully_shard(model, mesh=mesh("replicate", "shard"))
    return model


def four_shards() -> nn.Module:
    """The second layer has three rows: the last rank holds nothing of it."""
    return layers_sharded(network(), mesh("shard"))


def both_tensor_parallel() -> nn.Module:
    """Both layers are cut along both axes."""
    both, model = mesh("data", "tensor"), network()
    plan: Plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, both["tensor"], plan)
    return layers_sharded(model, both["data"])


def one_tensor_parallel() -> nn.Module:
    """The second layer is cut along one axis only."""
    both, model = mesh("data", "tensor"), network()
    plan: Plan = {"0": ColwiseParallel(output_layouts=Replicate())}
    parallelize_module(model, both["tensor"], plan)
    return layers_sharded(model, both["data"])


KINDS = {
    "hybrid-layers": hybrid_layers,
    "hybrid-root": hybrid_root,
    "four-shards": four_shards,
    "both-tensor": both_tensor_parallel,
    "one-tensor": one_tensor_parallel,
}


def mine(rank: int, kind: str, data: Tensor) -> Tensor:
    """The examples of this rank; tensor parallel ranks share theirs."""
    if kind.endswith("tensor"):
        return data.chunk(2)[rank // 2]
    return data.chunk(RANKS)[rank]


def train(rank: int, kind: str, model: nn.Module, optimizer: SAM, steps: range) -> None:
    for x, y in batches(steps.stop, EXAMPLES)[steps.start :]:
        for _ in optimizer.probes():
            cross_entropy(model(mine(rank, kind, x)), mine(rank, kind, y)).backward()
        optimizer.step()


def save_halfway(rank: int, kind: str, folder: str) -> None:
    model = KINDS[kind]()
    optimizer = SAM(sgd(model), model, rho=RHO)
    train(rank, kind, model, optimizer, range(3))
    save(model, optimizer, folder)


def continue_from(rank: int, kind: str, folder: str) -> dict[str, Any]:
    model = KINDS[kind]()
    # A radius that the checkpoint has to replace.
    optimizer = SAM(sgd(model), model, rho=9.0, track=True)
    load(model, optimizer, folder)
    train(rank, kind, model, optimizer, range(3, 5))
    return summary(model, optimizer)


def trained(rank: int, kind: str, steps: int, sam: dict[str, Any]) -> dict[str, Any]:
    """Weights, restored bit for bit or not, and the statistics of the last step."""
    model = KINDS[kind]()
    optimizer = SAM(sgd(model), model, rho=RHO, track=True, **sam)
    kept = True
    for x, y in batches(steps, EXAMPLES):
        parts = [locally(p) for p in model.parameters()]
        before = [(part.clone(), part.data_ptr()) for part in parts]
        for _ in optimizer.probes():
            cross_entropy(model(mine(rank, kind, x)), mine(rank, kind, y)).backward()
        after = [locally(p) for p in model.parameters()]
        for (value, place), now in zip(before, after, strict=True):
            kept &= torch.equal(value, now) and now.data_ptr() == place
        optimizer.step()
    return summary(model, optimizer) | {"kept": kept}


def summary(model: nn.Module, optimizer: SAM) -> dict[str, Any]:
    norm, cosine = optimizer.statistics.grad_norm, optimizer.statistics.cosine
    assert norm is not None
    assert cosine is not None
    weights = [whole(p.detach()) for p in model.parameters()]
    return {"weights": weights, "norm": norm.item(), "cosine": cosine.item()}


def length_of_the_perturbation(rank: int, kind: str) -> float:
    """``||eps||_2`` of the whole model, gathered entry by entry."""
    model = KINDS[kind]()
    optimizer = SAM(sgd(model), model, rho=RHO)
    [(x, y)] = batches(1, EXAMPLES)
    stands = [entries(model)]
    for probe in optimizer.probes():
        if probe.perturbed:
            stands.append(entries(model))
        cross_entropy(model(mine(rank, kind, x)), mine(rank, kind, y)).backward()
    w, there = stands
    return (there - w).norm().item()


def entries(model: nn.Module) -> Tensor:
    whole = [
        p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()
    ]
    return torch.cat([p.detach().flatten() for p in whole])


def accumulated(rank: int, kind: str) -> dict[str, Any]:
    """Two perturbations per step: one for each half of every rank's examples."""
    model = KINDS[kind]()
    optimizer = SAM(sgd(model), model, rho=RHO, track=True)
    for x, y in batches(3, EXAMPLES):
        optimizer.zero_grad()
        halves = zip(
            mine(rank, kind, x).chunk(2), mine(rank, kind, y).chunk(2), strict=True
        )
        for half_x, half_y in halves:
            for _ in optimizer.probes(accumulate=True):
                (cross_entropy(model(half_x), half_y) / 2).backward()
        optimizer.step()
    return summary(model, optimizer)


@cache
def pairs() -> list[Any]:
    """The first and the last two ranks."""
    return [dist.new_group([0, 1]), dist.new_group([2, 3])]


def climbing_in_pairs(rank: int, steps: int) -> dict[str, Any]:
    """Weights after some steps of replicas that share perturbations two by two."""
    model = DDP(network())
    scope = Group(pairs()[rank // 2])
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope)
    norms = []
    for x, y in batches(steps, EXAMPLES):
        for _ in optimizer.probes():
            cross_entropy(model(x.chunk(RANKS)[rank]), y.chunk(RANKS)[rank]).backward()
        assert optimizer.statistics.grad_norm is not None
        norms.append(optimizer.statistics.grad_norm.item())
        optimizer.step()
    return {"weights": weights(model), "norms": norms}


def shards_after(rank: int, steps: int) -> list[Any]:
    """This rank's part of each weight after training in float32."""
    model = layers_sharded(network(torch.float32), mesh("replicate", "shard"))
    optimizer = SAM(sgd(model), model, rho=RHO)
    for x, y in batches(steps, EXAMPLES, torch.float32):
        for _ in optimizer.probes():
            cross_entropy(model(x.chunk(RANKS)[rank]), y.chunk(RANKS)[rank]).backward()
        optimizer.step()
    return [locally(p).tolist() for p in model.parameters()]


def on_shards(kind: str, values: Gradients, change: Filter) -> list[Any]:
    """What is left of these values, each cut as its parameter is."""
    w: list[Tensor] = list(KINDS[kind]().parameters())
    parts: Gradients = [
        None if x is None else share_of(x, p) for x, p in zip(values, w, strict=True)
    ]
    step = Step(0, nn.Module(), w, [{}], group_of=[0] * len(w))
    return [
        None if x is None else whole(whole_as(x, p))
        for x, p in zip(change(step, parts), w, strict=True)
    ]


def ranked(rank: int, kind: str, values: Gradients, share: float) -> list[Any]:
    """The mask of the highest of these values."""
    return on_shards(kind, values, lambda step, parts: highest(step, parts, share))


def outliers_of(rank: int, kind: str, values: Gradients, share: float) -> list[Any]:
    """What the filter for outliers leaves of these values."""
    return on_shards(kind, values, outliers(share))

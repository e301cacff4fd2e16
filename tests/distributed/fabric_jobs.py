"""What ranks do with Lightning Fabric, in the process group that is there already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.nn.utils import clip_grad_norm_

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
from tests.distributed.ranks import WORLD_SIZE
from tests.distributed.shard_jobs import mesh, whole
from tests.methods.table import built

#: Below what the gradients have, so that clipping shows.
MAX_NORM = 0.1


@contextmanager
def launched(rank: int, **options: Any) -> Iterator[Fabric]:
    """Fabric, as ``torchrun`` would start it in each rank."""
    names = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK", "GROUP_RANK")
    counts = (WORLD_SIZE, WORLD_SIZE, rank, rank, 0)
    variables = dict(zip(names, map(str, counts), strict=True))
    with mock.patch.dict(os.environ, variables):
        fabric = Fabric(
            accelerator="cpu",
            devices=WORLD_SIZE,
            plugins=TorchElasticEnvironment(),
            **options,
        )
        fabric.launch()
        yield fabric


def small() -> nn.Sequential:
    # With "64-true" Fabric would make the outputs float32 all the same.
    return network(torch.float32)


def trained(rank: int, scope: str) -> list[Any]:
    """Four clipped steps, as a loop with Fabric is written."""
    with launched(rank, strategy="ddp") as fabric:
        model = fabric.setup_module(small())
        sam = SAM(sgd(model), model, rho=RHO, scope=scope_named(scope, rank))
        optimizer = fabric.setup_optimizers(sam)
        steps(fabric, model, optimizer, rank, range(4))
        return weights(model)


def straight(rank: int, scope: str) -> list[Any]:
    """The same without Fabric."""
    model = DDP(small())
    optimizer = SAM(sgd(model), model, rho=RHO, scope=scope_named(scope, rank))
    for x, y in batches(4, dtype=torch.float32):
        for _ in optimizer.probes():
            cross_entropy(model(part(rank, x)), part(rank, y)).backward()
        clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
    return weights(model)


def steps(
    fabric: Fabric, model: nn.Module, optimizer: Any, rank: int, which: range
) -> None:
    for x, y in batches(which.stop, dtype=torch.float32)[which.start :]:
        for probe in optimizer.probes():
            loss = cross_entropy(model(part(rank, x)), part(rank, y))
            probe.loss = loss
            fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=MAX_NORM)
        optimizer.step()


def cut(model: Any, mesh: DeviceMesh) -> nn.Module:
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh["data_parallel"])
    return model


def strategy_named(name: str) -> Any:
    if name == "ddp":
        return "ddp"
    return ModelParallelStrategy(
        cut, data_parallel_size=WORLD_SIZE, tensor_parallel_size=1
    )


def resumed(rank: int, strategy: str, method: str, path: str) -> list[list[Any]]:
    """The weights after six steps: in one go, and with a checkpoint after three."""
    with launched(rank, strategy=strategy_named(strategy)) as fabric:

        def fresh() -> tuple[Any, Any]:
            model = fabric.setup_module(small())
            return model, fabric.setup_optimizers(built(method, model))

        model, optimizer = fresh()
        steps(fabric, model, optimizer, rank, range(3))
        fabric.save(path, {"model": model, "optimizer": optimizer})
        steps(fabric, model, optimizer, rank, range(3, 6))
        other, continued = fresh()
        fabric.load(path, {"model": other, "optimizer": continued})
        steps(fabric, other, continued, rank, range(3, 6))
        return [[whole(p) for p in m.parameters()] for m in (model, other)]


def sharded(rank: int) -> list[list[Any]]:
    """The weights after four steps, with Fabric and without."""
    with launched(rank, strategy=strategy_named("sharded")) as fabric:
        model = fabric.setup_module(small())
        optimizer = fabric.setup_optimizers(SAM(sgd(model), model, rho=RHO))
        steps(fabric, model, optimizer, rank, range(4))
    plain = cut(small(), mesh("data_parallel"))
    sam = SAM(sgd(plain), plain, rho=RHO)
    for x, y in batches(4, dtype=torch.float32):
        for _ in sam.probes():
            cross_entropy(plain(part(rank, x)), part(rank, y)).backward()
        clip_grad_norm_(plain.parameters(), MAX_NORM)
        sam.step()
    return [[whole(p) for p in m.parameters()] for m in (model, plain)]


def accumulate_inside_no_sync(rank: int) -> str:
    with launched(rank, strategy="ddp") as fabric:
        model = fabric.setup_module(small())
        optimizer: Any = fabric.setup_optimizers(SAM(sgd(model), model))
        try:
            with fabric.no_backward_sync(model):
                next(optimizer.probes(accumulate=True))
        except RuntimeError as refused:
            return str(refused)
    return ""


def set_up_too_early(rank: int, attaches: bool) -> list[Any] | str:
    """SAM is built before Fabric wraps the model."""
    with launched(rank, strategy="ddp") as fabric:
        plain = small()
        model, optimizer = fabric.setup(plain, SAM(sgd(plain), plain, rho=RHO))
        if attaches:
            optimizer.attach(model)
        try:
            steps(fabric, model, optimizer, rank, range(4))
        except RuntimeError as refused:
            return str(refused)
        return weights(model)

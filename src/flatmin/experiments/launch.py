"""The processes of a run: one, or as many as torchrun has started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import DoublePrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from flatmin.experiments.config import Experiment
from flatmin.experiments.errors import BadInput

#: What messages about torchrun's variables say last.
_SET = (
    "torchrun sets it: start with torchrun --nproc-per-node N -m flatmin train ..., "
    "or unset WORLD_SIZE and LOCAL_WORLD_SIZE for one process."
)


def world_size() -> int:
    """How many processes torchrun has started; 1 without it.

    Raises:
        BadInput: ``WORLD_SIZE`` is no number of processes.
    """
    return _number("WORLD_SIZE")


def _local_size(world: int) -> int:
    """How many of them are on this machine."""
    local = _number("LOCAL_WORLD_SIZE")
    if world > 1 and "LOCAL_WORLD_SIZE" not in os.environ:
        raise BadInput(
            f"LOCAL_WORLD_SIZE is not set, and WORLD_SIZE is {world}. {_SET}"
        )
    if world % local:
        raise BadInput(
            f"LOCAL_WORLD_SIZE={local} does not divide WORLD_SIZE={world}. {_SET}"
        )
    return local


def _number(name: str) -> int:
    """Read a number of processes from the environment; 1 if it is not set."""
    text = os.environ.get(name, "1")
    if not (text.isascii() and text.isdigit() and int(text)):
        raise BadInput(f"{name}={text} is no number of processes. {_SET}")
    return int(text)


def launched(experiment: Experiment) -> Fabric:
    """Launch Fabric in the processes that were started.

    ``torchrun --nproc-per-node 8 -m flatmin train ...`` starts several, on one machine
    or, with ``--nnodes``, on many that share the run folder. They train in
    DistributedDataParallel unless the experiment says ``strategy="fsdp"``.

    Raises:
        BadInput: there is no such device, a strategy is set for one process, or the
            environment is not torchrun's.
    """
    world = world_size()
    local = _local_size(world)
    device = _device(experiment.device)
    if world == 1 and experiment.strategy != "auto":
        raise BadInput(
            f"strategy {experiment.strategy} needs several processes. Start with "
            "torchrun --nproc-per-node N -m flatmin train ..."
        )
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=world // local,
        strategy=_strategy(experiment.strategy, world) if world > 1 else "auto",
        **_precision(experiment.precision),
    )
    fabric.launch()
    return fabric


class _Double(DoublePrecision):
    """Double precision for the loss too, where Fabric would round the outputs."""

    def convert_output(self, data: Any) -> Any:
        """Return the outputs as they are."""
        return data


def _precision(name: str) -> dict[str, Any]:
    return {"plugins": [_Double()]} if name == "64-true" else {"precision": name}


def _device(wanted: str) -> str:
    found = torch.accelerator.current_accelerator(check_available=True)
    here = "cpu" if found is None else found.type
    if wanted not in ("auto", "cpu", here):
        raise BadInput(f"no {wanted} device here. Use --set device=cpu.")
    return here if wanted == "auto" else wanted


def _strategy(name: str, world: int) -> DDPStrategy | ModelParallelStrategy:
    if name == "fsdp":
        return ModelParallelStrategy(_sharded, world, tensor_parallel_size=1)
    return DDPStrategy()


def _sharded(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard each part of the network on its own, so that each is gathered in turn."""
    processes = mesh["data_parallel"]
    try:
        for part in network.children():
            if next(part.parameters(), None) is not None:
                fully_shard(part, mesh=processes)
        fully_shard(network, mesh=processes)
    except ValueError as refused:  # Scalars, of networks without BatchNorm
        raise BadInput(f"this network cannot be sharded: {refused}") from None
    return network


@contextmanager
def share_of_threads(processes: int) -> Iterator[None]:
    """Limit torch to one of ``processes`` equal shares of its threads in the block.

    The rest is for the other processes; after the block, this one has all again.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(threads // processes, 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)

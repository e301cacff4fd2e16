"""The processes of a run: one, or as many as torchrun has started."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import DoublePrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from flatmin.experiments.errors import BadInput
from flatmin.experiments.experiment import Experiment


def world_size() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched(experiment: Experiment) -> Fabric:
    """Fabric for the processes there are.

    ``torchrun --nproc-per-node 8 -m flatmin train ...`` starts several, on one machine
    or, with ``--nnodes``, on many that share the run folder. They train in
    DistributedDataParallel unless the experiment says ``strategy="fsdp"``.

    Raises:
        BadInput: there is no such device, or one process is to share its work.
    """
    world = world_size()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
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
    """The loss is in double precision too; Fabric rounds the outputs before it."""

    def convert_output(self, data: Any) -> Any:
        """As they are."""
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
    """Each part of the network is gathered when it is its turn."""
    processes = mesh["data_parallel"]
    try:
        for part in network.children():
            if next(part.parameters(), None) is not None:
                fully_shard(part, mesh=processes)
        fully_shard(network, mesh=processes)
    except ValueError as refused:  # Scalars, of networks without BatchNorm
        raise BadInput(f"this network cannot be sharded: {refused}") from None
    return network

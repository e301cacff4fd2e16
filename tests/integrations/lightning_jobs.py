"""What the tests of Lightning run in other processes."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import flatmin
from flatmin.integrations.lightning import SharpnessAware
from tests.frameworks import lightning_host as host
from tests.frameworks.scenario import (
    COLUMNS,
    EPOCHS,
    Scenario,
    Trace,
    base_of,
    batches,
    loss_of,
    network,
    start,
    trace,
)


class World(host.Automatic):
    """All processes share a perturbation."""

    def configure_optimizers(self) -> Any:
        return flatmin.SAM(
            base_of(self), self.wrapped(), rho=self.of.rho, scope="world"
        )

    wrapped = host.Manual.wrapped


class ManualWithMixin(SharpnessAware, host.Manual):
    """A loop by hand; the mixin tells SAM of DistributedDataParallel."""

    def wrapped(self) -> nn.Module:
        return self


class Sharded(host.Automatic):
    """Sharded where Lightning wants it."""

    def configure_model(self) -> None:
        from torch.distributed.fsdp import fully_shard

        mesh: Any = self.device_mesh
        fully_shard(self.net, mesh=mesh["data_parallel"])


world = partial(host.train, World)
manual_with_mixin = partial(host.train, ManualWithMixin)


def world_by_hand(of: Scenario, rank: int) -> Trace:
    """Each micro-batch of all processes has a perturbation of its own."""
    model = DistributedDataParallel(network(of))
    sam = flatmin.SAM(base_of(model), model, rho=of.rho, scope="world")
    start()
    for k, (x, y) in enumerate([*batches(rank)] * EPOCHS):
        if k % of.accumulate == 0:
            sam.zero_grad()
        for _ in sam.probes(accumulate=True):
            (loss_of(model(x), y) / of.accumulate).backward()
        if (k + 1) % of.accumulate == 0:
            sam.step()
    return trace(model, [])


def sharded(of: Scenario, rank: int) -> Trace:
    """With FSDP2; every process returns whole weights."""
    strategy = ModelParallelStrategy(
        data_parallel_size=of.processes,
        tensor_parallel_size=1,
        process_group_backend="gloo",
    )
    module = Sharded(of)
    trainer = host.trainer_of(of, host.Watch(), ".", manual=False, strategy=strategy)
    with host.quiet():
        trainer.fit(module, host.Batches(rank))
    return Trace({k: _whole(t) for k, t in module.net.state_dict().items()}, [])


def _whole(t: Any) -> Tensor:
    return t.full_tensor() if hasattr(t, "full_tensor") else t.clone()


class Kill(host.Watch):
    """Ends the process, as a cluster does."""

    def count(self, name: str, trainer: Any, *_: Any) -> None:
        try:
            super().count(name, trainer)
        except host.Killed:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    resume = COLUMNS["resume"]
    host.fit(host.Automatic(resume), Kill(resume.stop), 0, sys.argv[1])

"""The state from which a run continues: one file per process, complete or absent."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.optim.lr_scheduler import LambdaLR

from flatmin.averaging import EMA
from flatmin.experiments.evaluate import Means
from flatmin.experiments.runs import checkpoint
from flatmin.experiments.runs.files import write
from flatmin.optim import SAM


class State:
    """What changes while a network is trained.

    Args:
        fabric: of the processes that train it.
        network: the network; a process may have a shard of its weights.
        optimizer: the method around the base optimizer.
        schedule: of the learning rate.
        decay: of an average of the weights; None for none.

    Attributes:
        average: of the weights; None without one.
        means: of what the steps since the last test have measured.
        step: how many steps were taken.
        gradient_examples: over how many examples gradients were taken, by all
            processes together.
        seconds: of training.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: nn.Module,
        optimizer: SAM,
        schedule: LambdaLR,
        decay: float | None = None,
    ) -> None:
        self._fabric, self.network = fabric, network
        self._optimizer, self._schedule = optimizer, schedule
        self.average = None if decay is None else EMA(network, decay)
        self.means = Means(fabric.device)
        self.step = self.gradient_examples = 0
        self.seconds = 0.0

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the network the average of its weights in the block, if there is one."""
        lent = nullcontext() if self.average is None else self.average.applied()
        with lent, self.alike():
            yield

    @contextmanager
    def alike(self) -> Iterator[None]:
        """Give all processes the first one's running statistics in the block."""
        buffers = list(self.network.buffers()) if self._fabric.world_size > 1 else []
        mine = [buffer.clone() for buffer in buffers]
        for buffer in buffers:
            dist.broadcast(buffer, 0)
        try:
            yield
        finally:
            for buffer, own in zip(buffers, mine, strict=True):
                buffer.copy_(own)

    def whole(self) -> dict[str, Tensor]:
        """Return the weights, gathered from all processes where they are sharded."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights: dict[str, Any] = get_model_state_dict(self.network, options=options)
        return weights

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Load weights that `whole` returned; each process takes its own part."""
        options = StateDictOptions(full_state_dict=True)
        mine: dict[str, Any] = {**weights}
        set_model_state_dict(self.network, mine, options=options)

    def save(self, folder: Path) -> None:
        """Write a checkpoint; every process calls this and writes its own part.

        Raises:
            OSError: the disk is full, or cannot be written to. The checkpoint before
                is still there.
        """
        buffer = io.BytesIO()
        torch.save(self._state(), buffer)
        rank, world = self._fabric.global_rank, self._fabric.world_size
        write(checkpoint.part(folder, self.step, rank), buffer.getvalue())
        self._fabric.barrier()
        if self._fabric.is_global_zero:
            checkpoint.commit(folder, self.step, world)

    def load(self, folder: Path) -> None:
        """Load this process's part of the checkpoint; without one, do nothing.

        Raises:
            BadInput: a file is damaged, or another number of processes wrote it.
        """
        step = checkpoint.committed(folder, self._fabric.world_size)
        if step is None:
            return
        path = checkpoint.part(folder, step, self._fabric.global_rank)
        try:
            self._take(torch.load(path, weights_only=True, map_location="cpu"))
        except Exception as error:
            raise checkpoint.damaged(folder, path, error) from None

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "precision": self._fabric.strategy.precision.state_dict(),
            "random": _random_streams(self._fabric.device),
            "means": self.means.sums,
            "step": self.step,
            "gradient_examples": self.gradient_examples,
            "seconds": self.seconds,
        }

    def _take(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self._fabric.strategy.precision.load_state_dict(state["precision"])
        for kind, stream in state["random"].items():
            _stream_of(kind).set_rng_state(stream)
        self.means.sums.copy_(state["means"])
        self.step = state["step"]
        self.gradient_examples = state["gradient_examples"]
        self.seconds = state["seconds"]


def _random_streams(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's own generators, by kind of device."""
    kinds = dict.fromkeys(("cpu", device.type))
    return {kind: _stream_of(kind).get_rng_state() for kind in kinds}


def _stream_of(kind: str) -> Any:
    return torch if kind == "cpu" else torch.get_device_module(kind)

"""The scope joint: who shares one perturbation; the engine applies it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flatmin.core._program import Gradients
from flatmin.core._tensors import real


class Scope(Protocol):
    """Surrounds the passes that only climb, and shares what they find."""

    def climbing(self, model: nn.Module) -> AbstractContextManager[object]:
        """What surrounds a pass whose gradient serves the ascent alone."""
        ...

    def share(self, w: list[Tensor], g: Gradients) -> Gradients:
        """The gradient along which all who share the perturbation climb.

        Args:
            w: the parameters.
            g: what this process found; the result may not be the same tensors.
        """
        ...


class Replica:
    """Each process climbs along its own gradient, without communication.

    The paper's choice: its perturbation is that of one accelerator's part of the
    batch, so that m is the batch size per process (section 4.1).
    """

    def climbing(self, model: nn.Module) -> AbstractContextManager[object]:
        """No averaging, if the model would average."""
        return _silent(model)

    def share(self, w: list[Tensor], g: Gradients) -> Gradients:
        """``g`` as it is."""
        del w
        return g


class World:
    """All replicas climb along the gradient of the whole batch.

    DistributedDataParallel averages the first gradient like the second. With equal
    parts per process this is SAM of one process with the whole batch.
    """

    def climbing(self, model: nn.Module) -> AbstractContextManager[object]:
        """Nothing: the model averages."""
        del model
        return nullcontext()

    def share(self, w: list[Tensor], g: Gradients) -> Gradients:
        """``g`` as it is, averaged already."""
        del w
        return g


@dataclass(frozen=True, slots=True)
class Group:
    """The replicas of a process group climb along their common gradient.

    What the paper's code calls its inner group. One all-reduce per step, of all
    gradients at once, within the group; a parameter without gradient counts as zero.

    Attributes:
        group: from ``torch.distributed.new_group``; this process belongs to it.

    Raises:
        ValueError: this process does not belong to the group.
    """

    group: dist.ProcessGroup

    def __post_init__(self) -> None:
        if dist.get_rank(self.group) < 0:
            raise ValueError(
                f"process {dist.get_rank()} does not belong to the group of the scope. "
                "Give each process the group that it is in."
            )

    def climbing(self, model: nn.Module) -> AbstractContextManager[object]:
        """No averaging over all replicas."""
        return _silent(model)

    def share(self, w: list[Tensor], g: Gradients) -> Gradients:
        """The mean over the group."""
        whole = [
            torch.zeros_like(p) if g_i is None else g_i
            for p, g_i in zip(w, g, strict=True)
        ]
        entries = real(whole)
        double = any(x.dtype == torch.float64 for x in entries)
        widest = torch.float64 if double else torch.float32
        flat = torch.cat([x.reshape(-1).to(widest) for x in entries])
        dist.all_reduce(flat, group=self.group)
        flat /= dist.get_world_size(self.group)
        parts = torch.split(flat, [x.numel() for x in entries])
        means = [part.view_as(x) for part, x in zip(parts, entries, strict=True)]
        return [
            torch.view_as_complex(mean) if x.is_complex() else mean
            for mean, x in zip(means, whole, strict=True)
        ]


def _silent(model: nn.Module) -> AbstractContextManager[object]:
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()

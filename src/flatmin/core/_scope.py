"""The scope joint: which replicas share one perturbation; the engine applies it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flatmin.core._program import Gradients
from flatmin.core._tensors import as_gradient, real

_HOOKS = "torch.distributed.algorithms.ddp_comm_hooks"

#: Where torch's communication hooks are that average, if with fewer bits.
_COMPRESS = {
    f"{_HOOKS}.{name}"
    for name in ("default_hooks", "powerSGD_hook", "quantization_hooks")
}


class Scope(Protocol):
    """Surrounds the passes that replicas make alone, and shares what they find."""

    def alone(self, model: nn.Module) -> AbstractContextManager[object]:
        """Return a context for a pass whose gradient need not be averaged."""
        ...

    def share(self, w: list[Tensor], g: Gradients) -> Gradients:
        """Return the gradient for all replicas that share the perturbation.

        Args:
            w: the parameters.
            g: this process's gradient; the result may be other tensors.
        """
        ...

    def average(self, model: nn.Module, w: list[Tensor], v: Gradients) -> Gradients:
        """Average the vectors that replicas combined from their own gradients."""
        ...


class Replica:
    """Each process climbs along its own gradient, without communication.

    The paper's choice: its perturbation is that of one accelerator's part of the
    batch, so that m is the batch size per process (section 4.1).
    """

    def alone(self, model: nn.Module) -> AbstractContextManager[object]:
        """Suppress the model's averaging, if it averages."""
        return _silent(model)

    def share(self, w: list[Tensor], g: Gradients) -> Gradients:
        """``g`` as it is."""
        del w
        return g

    def average(self, model: nn.Module, w: list[Tensor], v: Gradients) -> Gradients:
        """The mean over all replicas, in one all-reduce."""
        return _averaged(model, w, v)


class World:
    """All replicas climb along the gradient of the whole batch.

    DistributedDataParallel averages the first gradient like the second. With equal
    parts per process this is SAM of one process with the whole batch.
    """

    def alone(self, model: nn.Module) -> AbstractContextManager[object]:
        """Return an empty context: the model averages."""
        del model
        return nullcontext()

    def share(self, w: list[Tensor], g: Gradients) -> Gradients:
        """``g`` as it is, averaged already."""
        del w
        return g

    def average(self, model: nn.Module, w: list[Tensor], v: Gradients) -> Gradients:
        """``v`` as it is, alike everywhere."""
        del model, w
        return v


@dataclass(frozen=True, slots=True)
class Group:
    """The replicas of a process group climb along their common gradient.

    What the paper's code calls its inner group. One all-reduce per step, of all
    gradients at once, within the group; a gradient that one process lacks is zero.

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

    def alone(self, model: nn.Module) -> AbstractContextManager[object]:
        """Suppress the averaging over all replicas."""
        _check_nobody_leaves(replicas(model))
        return _silent(model)

    def share(self, w: list[Tensor], g: Gradients) -> Gradients:
        """The mean over the group."""
        return _over(w, g, self.group)

    def average(self, model: nn.Module, w: list[Tensor], v: Gradients) -> Gradients:
        """The mean over all replicas, in one all-reduce."""
        return _averaged(model, w, v)


def replicas(model: nn.Module) -> list[DistributedDataParallel]:
    """Return the DistributedDataParallel modules: the model, or those inside it."""
    # Without process groups there are none, and a single process skips the search.
    if not (dist.is_available() and dist.is_initialized()):
        return []
    if isinstance(model, DistributedDataParallel):
        return [model]
    return [m for m in model.modules() if isinstance(m, DistributedDataParallel)]


def agree(model: nn.Module, x: Tensor) -> Tensor:
    """The mean of a 0-dim ``x`` over the replicas of the model, if it has any."""
    averaged = replicas(model)
    if not averaged:
        return x
    _check_nobody_leaves(averaged)
    return _mean([x], _group(averaged[0]))[0]


def _averaged(model: nn.Module, w: list[Tensor], v: Gradients) -> Gradients:
    """The mean over all replicas, in the dtypes of ``w``.

    The entries of parameters outside of DistributedDataParallel stay as they are: they
    may have another shape in every process.
    """
    averaged = replicas(model)
    if not averaged:
        return v
    _check_nobody_leaves(averaged)
    _check_hooks(averaged)
    inside = {id(p) for replica in averaged for p in _reduced_by(replica)}
    at = [i for i, p in enumerate(w) if id(p) in inside]
    means = _over([w[i] for i in at], [v[i] for i in at], _group(averaged[0]))
    result = list(v)
    for i, mean in zip(at, means, strict=True):
        result[i] = None if mean is None else as_gradient(mean, w[i])
    for replica in averaged:
        # As after a pass that averages: the next one begins with the same buffers.
        replica.require_forward_param_sync = True
    return result


def _reduced_by(replica: Any) -> list[Tensor]:
    """The parameters of a replica but those that it was told to ignore."""
    named = replica.module.named_parameters()
    return [p for name, p in named if name not in replica.parameters_to_ignore]


def _check_nobody_leaves(averaged: Sequence[Any]) -> None:
    """Refuse to wait for processes that may have no batch left.

    Raises:
        RuntimeError: the ``join()`` of a replica is active. It replaces such processes
            only in the communication of DistributedDataParallel itself. torch keeps it
            active after its end.
    """
    if any(replica._join_config.enable for replica in averaged):
        raise RuntimeError(
            "inside of join() replicas may only average as DistributedDataParallel "
            "does, but this scope or method averages by itself and would wait for "
            "processes that have no batch left. Use scope='world', or "
            "give all processes equally many batches."
        )


def _check_hooks(averaged: Sequence[Any]) -> None:
    """Refuse to average by the mean where a hook does something else.

    Raises:
        RuntimeError: a replica has a communication hook that does more than compress.
    """
    hooks = [hook for replica in averaged for hook, _ in replica._comm_hooks]
    if others := [hook for hook in hooks if hook.__module__ not in _COMPRESS]:
        raise RuntimeError(
            "this method combines or remembers gradients of its own and then averages "
            "by itself, without the communication hook "
            f"{getattr(others[0], '__name__', others[0])}. Use scope='world', where "
            "DistributedDataParallel averages every pass with it."
        )


def _over(w: list[Tensor], v: Gradients, group: dist.ProcessGroup) -> Gradients:
    """Group mean; a missing gradient counts as zero; None if all are missing."""
    there = torch.tensor([v_i is not None for v_i in v], device=w[0].device)
    *means, shares = _mean([*_filled(w, v), there], group)
    return [
        # Only where this process has no entry, ask whether another one has.
        None if v_i is None and shares[i] == 0 else mean
        for i, (v_i, mean) in enumerate(zip(v, means, strict=True))
    ]


def _group(replica: Any) -> dist.ProcessGroup:
    return replica.process_group


def _filled(w: list[Tensor], g: Gradients) -> list[Tensor]:
    """``g`` with zeros where there is no gradient."""
    return [
        torch.zeros_like(p) if g_i is None else g_i for p, g_i in zip(w, g, strict=True)
    ]


def _mean(xs: list[Tensor], group: dist.ProcessGroup) -> list[Tensor]:
    """The mean over a process group in float32 at least, in one all-reduce."""
    entries = real(xs)
    double = any(x.dtype == torch.float64 for x in entries)
    widest = torch.float64 if double else torch.float32
    flat = torch.cat([x.reshape(-1).to(widest) for x in entries])
    dist.all_reduce(flat, group=group)
    flat /= dist.get_world_size(group)
    parts = torch.split(flat, [x.numel() for x in entries])
    means = [part.view_as(x) for part, x in zip(parts, entries, strict=True)]
    return [
        torch.view_as_complex(mean) if x.is_complex() else mean
        for mean, x in zip(means, xs, strict=True)
    ]


@contextmanager
def _silent(model: nn.Module) -> Generator[None]:
    with ExitStack() as stack:
        for replica in replicas(model):
            stack.enter_context(replica.no_sync())
        yield

"""Refusals of what would make a number meaningless."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import (
    _BatchNorm,  # pyright: ignore[reportPrivateUsage]
    _NormBase,  # pyright: ignore[reportPrivateUsage]
)
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.parallel import DistributedDataParallel

from flatmin.core._scope import replicas
from flatmin.core._shards import is_dtensor


def check_model(model: object) -> nn.Module:
    """The module itself, without DistributedDataParallel around it.

    Raises:
        TypeError: it is no module.
        ValueError: it holds DistributedDataParallel further inside, its parameters are
            sharded, or narrower than float32, or none of them is trainable.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}.")
    wrapped = isinstance(model, DistributedDataParallel)
    inner = cast("nn.Module", model.module if wrapped else model)
    if replicas(inner):
        raise ValueError(
            f"model {type(model).__name__} holds DistributedDataParallel, which would "
            "wait for other processes in every pass. Give the module itself; Lightning "
            "Fabric's is model.module."
        )
    if any(is_dtensor(p) for p in inner.parameters()):
        raise ValueError(
            "diagnostics need whole parameters, got sharded ones (DTensor). Load the "
            "full state dict (torch.distributed.checkpoint.state_dict, "
            "full_state_dict=True) into an unsharded model and measure that."
        )
    if not any(p.requires_grad for p in inner.parameters()):
        raise ValueError(
            "the model has no parameter with requires_grad=True, so there is nothing "
            "to move. Thaw what shall be measured."
        )
    if narrow := {p.dtype for p in inner.parameters() if p.dtype.itemsize < 4}:
        raise ValueError(
            f"weights in {', '.join(sorted(map(str, narrow)))} are too coarse: "
            "w + eps would be rounded to w. Measure copy.deepcopy(model).float()."
        )
    return inner


def check_modes(model: nn.Module) -> None:
    """Refuse layers that are random, or that mix the examples of a batch.

    Raises:
        ValueError: dropout or a norm layer with running statistics is in training
            mode, or a BatchNorm layer has no running statistics.
    """
    bare = {type(m).__name__ for m in model.modules() if _mixes(m)}
    if bare:
        raise ValueError(
            f"{', '.join(sorted(bare))} without running statistics: the loss of an "
            "example depends on the others of its batch, in evaluation mode too. Train "
            "with track_running_stats=True."
        )
    found = sorted({kind for kind in map(_disturbs, model.modules()) if kind})
    if found:
        raise ValueError(
            f"{', '.join(found)} in training mode: the loss would be another one in "
            "every pass, or depend on how examples are grouped. Call model.eval()."
        )


def check_data(data: object) -> None:
    """Refuse what can be read once only.

    Raises:
        TypeError: it is not iterable, or an iterator.
    """
    kind = type(data).__name__
    if not hasattr(data, "__iter__") or isinstance(data, Iterator):
        raise TypeError(
            "data must give its batches every time it is read (a DataLoader, a list), "
            f"got {kind}. Wrap it in list(...) if it fits into memory."
        )


def check_same(first: Tensor, second: Tensor) -> None:
    """Refuse a loss that is another one when it is read again.

    Args:
        first: the mean loss of every batch, float64.
        second: the same, later.

    Raises:
        ValueError: the two are not the same up to rounding.
    """
    if first.shape != second.shape:
        problem = f"{len(first)} batches, then {len(second)}"
    elif not torch.allclose(first, second, rtol=1e-4, atol=1e-6, equal_nan=True):
        at = int((first - second).abs().nan_to_num(torch.inf).argmax())
        problem = f"batch {at} has loss {first[at]:.6g}, then {second[at]:.6g}"
    else:
        return
    raise ValueError(
        f"the data or the model change from pass to pass: {problem}. Give data without "
        "shuffling (shuffle=False) and without random augmentation, for instance "
        "list(loader), and a model without random layers."
    )


@contextmanager
def together(group: dist.ProcessGroup | None) -> Generator[None]:
    """What one process of the group refuses stops all of them, so that none waits.

    Raises:
        RuntimeError: another process has raised an error inside.
    """
    try:
        yield
    except Exception:
        _any_failed(group, 1)
        raise
    if _any_failed(group, 0):
        raise RuntimeError(
            "another process of the group has stopped the measurement. Its own error "
            "says why."
        )


def _any_failed(group: dist.ProcessGroup | None, failed: int) -> bool:
    if group is None:
        return bool(failed)
    device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    flag = torch.tensor(failed, device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX, group=group)
    return bool(flag)


def _mixes(module: nn.Module) -> bool:
    """Whether the layer has nothing but the batch to normalise with."""
    return isinstance(module, _BatchNorm) and module.running_mean is None


def _disturbs(module: nn.Module) -> str | None:
    """The name of the kind of layer if it is one that disturbs."""
    kind = type(module).__name__
    if not module.training:
        return None
    if isinstance(module, _DropoutNd):
        return kind if module.p > 0 else None
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return kind if module.dropout > 0 else None
    return kind if isinstance(module, _NormBase | nn.RReLU) else None

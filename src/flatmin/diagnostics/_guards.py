"""Refusals of models and data that would make a number meaningless."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import (
    _BatchNorm,  # pyright: ignore[reportPrivateUsage]
    _NormBase,  # pyright: ignore[reportPrivateUsage]
)
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrizations import (
    _SpectralNorm,  # pyright: ignore[reportPrivateUsage]
)
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.utils.data import DistributedSampler

from flatmin.core._autograd import check_checkpoints
from flatmin.core._away import are_away
from flatmin.core._fsdp import reshard
from flatmin.core._scope import replicas
from flatmin.core._shards import any_sharded
from flatmin.diagnostics._criterion import BatchLoss

_NO_GRADIENT = (
    "the loss has no gradient with respect to the trainable parameters. Leave out "
    "detach(), no_grad() and inference_mode() in model, forward and criterion, and "
    "around the measurement."
)


def check_model(model: object) -> nn.Module:
    """Return the module itself, without DistributedDataParallel around it.

    Raises:
        TypeError: it is no module.
        ValueError: it holds DistributedDataParallel further inside, its parameters are
            sharded, or have no values yet, or none of them is trainable, or one that is
            trainable is narrower than float32.
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
    _check_made(inner)
    reshard(inner)
    if any_sharded([*inner.parameters()]):
        raise ValueError(
            "diagnostics need whole parameters, got sharded ones (DTensor). Load the "
            "full state dict (torch.distributed.checkpoint.state_dict, "
            "full_state_dict=True) into an unsharded model and measure that."
        )
    if not any(p.requires_grad for p in inner.parameters()):
        raise ValueError(
            "the model has no parameter with requires_grad=True, so there is nothing "
            "to move. Thaw those that are to be measured."
        )
    moving = [p for p in inner.parameters() if p.requires_grad]
    if narrow := {p.dtype for p in moving if p.dtype.itemsize < 4}:
        raise ValueError(
            f"weights in {', '.join(sorted(map(str, narrow)))} are too coarse: "
            "w + eps would be rounded to w. Measure copy.deepcopy(model).float()."
        )
    return inner


def _check_made(model: nn.Module) -> None:
    """Refuse a model that the first batch will complete.

    Raises:
        ValueError: it has lazy parameters or buffers.
    """
    # torch does not say what the two yield.
    named = cast(
        "list[tuple[str, Tensor]]", [*model.named_parameters(), *model.named_buffers()]
    )
    if lazy := [name for name, x in named if is_lazy(x)]:
        raise ValueError(
            f"{', '.join(lazy)} have no values before the first batch. Run one batch "
            "through the model before you measure it: model(x)."
        )


def check_home(model: nn.Module) -> None:
    """Refuse weights that an optimizer's loop has moved.

    Raises:
        RuntimeError: they are at ``w + eps``.
    """
    if are_away(model.parameters()):
        raise RuntimeError(
            "a measurement inside of a probes() loop, where weights are at w + eps. "
            "Measure after optimizer.step()."
        )


def refuse_change() -> NoReturn:
    """Refuse a model that changes its own weights.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        "the forward pass changes weights, so the loss is no function of them. For an "
        "embedding with max_norm, set layer.max_norm = None after training; else leave "
        "out what forward writes to parameters."
    )


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


def check_data(data: Any, group: dist.ProcessGroup | None) -> None:
    """Refuse data that can be read only once, or whose parts do not fit the group.

    Raises:
        TypeError: the data is not iterable, or an iterator.
        ValueError: a DistributedSampler repeats examples, or there is no group.
    """
    kind = type(data).__name__
    if not hasattr(data, "__iter__") or isinstance(data, Iterator):
        raise TypeError(
            "data must give its batches every time it is read (a DataLoader, a list), "
            f"got {kind}. Wrap it in list(...) if it fits into memory."
        )
    sampler = getattr(data, "sampler", None)
    if isinstance(sampler, DistributedSampler) and sampler.num_replicas > 1:
        _check_sampler(cast("Any", sampler), group)


def _check_sampler(sampler: Any, group: dist.ProcessGroup | None) -> None:
    examples = len(sampler.dataset)
    if group is None:
        raise ValueError(
            f"DistributedSampler gives this process {len(sampler)} of {examples} "
            "examples, so its number would not be that of the data. Give group=, for "
            "instance torch.distributed.group.WORLD, or data without this sampler."
        )
    if sampler.total_size > examples:
        raise ValueError(
            f"DistributedSampler repeats {sampler.total_size - examples} of {examples} "
            "examples to make equal parts, and they would count twice. Give each "
            "process Subset(dataset, range(rank, len(dataset), world_size)), of "
            "torch.utils.data."
        )


def means(losses: Sequence[BatchLoss]) -> Tensor:
    """The mean loss of every batch: float64, 1-dim, on the CPU."""
    values = [loss.mean.cpu() for loss in losses]
    return (
        torch.stack(values)
        if values
        else torch.zeros(0, dtype=torch.float64, device="cpu")
    )


def check_finite(losses: Sequence[BatchLoss]) -> None:
    """Refuse losses that are not finite.

    Raises:
        ValueError: the loss of a batch, or what it divides by, is infinite or NaN.
    """
    for at, loss in enumerate(losses):
        if not (loss.total.isfinite() and loss.divisor.isfinite()):
            raise ValueError(
                f"the loss of batch {at} is {float(loss.mean):g}: there is nothing to "
                "measure around weights whose loss is not finite. If it is the mean of "
                "nothing, as every target is ignored, return the sum of the losses and "
                "the number it is divided by."
            )


def check_divisor(n: int, divisor: float) -> None:
    """Refuse data without anything to average over.

    Raises:
        ValueError: there are no examples, or all their targets are ignored.
    """
    if n == 0:
        raise ValueError("the data has no batch with an example in it.")
    if not divisor > 0:
        raise ValueError(
            f"the {n} examples have nothing to average over: their losses divide by "
            f"{divisor:g}. Every target is ignored (ignore_index), or has a class "
            "weight of 0."
        )


def check_count(now: Tensor, before: Tensor) -> None:
    """Refuse a criterion whose divisor differs from that of the first reading.

    Raises:
        ValueError: it differs.
    """
    if not torch.allclose(now, before, rtol=1e-9, atol=0):
        raise ValueError(
            f"the losses divided by {float(before):g} when the Objective was built, "
            f"and now by {float(now):g}. What a mean divides by must depend on the "
            "targets alone, not on the weights. If you have changed the criterion, "
            "build a new Objective."
        )


def check_graph(loss: Tensor) -> None:
    """Refuse a loss that no gradient flows through, or not all of it.

    Raises:
        ValueError: the loss was computed without a graph.
        RuntimeError: a part of the model is in a reentrant checkpoint.
    """
    if not loss.requires_grad:
        raise ValueError(_NO_GRADIENT)
    check_checkpoints(loss)


def check_mode() -> None:
    """Refuse inference mode, in which torch keeps no graph.

    Raises:
        ValueError: it is on.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(_NO_GRADIENT)


def check_weights(model: nn.Module, w: Sequence[Tensor]) -> None:
    """Refuse a model whose trainable parameters have changed since the beginning.

    Raises:
        ValueError: one has been frozen, thawed or replaced.
    """
    now = [p for p in model.parameters() if p.requires_grad]
    if [id(p) for p in now] != [id(p) for p in w]:
        raise ValueError(
            "the model's trainable parameters are not those the Objective was built "
            "with: some have been frozen, thawed or replaced. Build a new Objective."
        )


def check_same(first: Tensor, second: Tensor) -> None:
    """Refuse a loss that differs when the data is read again.

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
    """Within, an error of one process of the group stops all, so that none waits.

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


def older_spectral_norms(module: nn.Module) -> list[SpectralNorm]:
    """Return torch.nn.utils.spectral_norm's hooks, which refine an estimate."""
    hooks = cast("Any", module)._forward_pre_hooks.values()
    return [hook for hook in hooks if isinstance(hook, SpectralNorm)]


def _disturbs(module: nn.Module) -> str | None:
    """Return the kind of a layer that is random or mixes examples, else None."""
    kind = type(module).__name__
    if not module.training:
        return None
    if isinstance(module, _SpectralNorm) or older_spectral_norms(module):
        return "spectral_norm"
    if isinstance(module, _DropoutNd):
        return kind if module.p > 0 else None
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return kind if module.dropout > 0 else None
    return kind if isinstance(module, _NormBase | nn.RReLU) else None

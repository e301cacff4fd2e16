"""A model's tensors by name, and arithmetic on them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from flatmin.core._fsdp import reshard

#: Tensors of a model by the name that they have there.
Named = dict[str, Tensor]


def tensors_of(model: nn.Module) -> Named:
    """Return parameters and buffers by name; one with two names has its first.

    Buffers that a state dict leaves out, such as masks, are the model's own affair.
    """
    derived = _derived(model)
    buffers = model.named_buffers()
    kept = {name: buffer for name, buffer in buffers if name not in derived}
    return {**weights_of(model), **kept}


def _derived(model: nn.Module) -> set[str]:
    """Return the names of buffers with ``persistent=False``."""
    # torch does not say what named_modules() yields.
    modules = cast("Iterable[tuple[str, nn.Module]]", model.named_modules())
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in modules
        for name in module._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
    }


def weights_of(model: nn.Module) -> Named:
    """Return the parameters by name."""
    reshard(model)
    return dict(model.named_parameters())


def wide(t: Tensor) -> Tensor:
    """A copy, in float32 at least: in bfloat16 small moves would be rounded away."""
    return t.detach().to(_wide(t.dtype), copy=True)


def _wide(dtype: torch.dtype) -> torch.dtype:
    narrow = dtype.is_floating_point and dtype.itemsize < 4
    return torch.float32 if narrow else dtype


def averaged(mean: Named, now: Named, share: float, latest: Container[str]) -> None:
    """``mean <- mean + share (now - mean)``, in place; other types take the new value.

    A mean follows a model to another device, and to a wider type.

    Args:
        mean: the average.
        now: the tensors as they are.
        share: of the average that is replaced.
        latest: names of tensors that take the new value too.
    """
    for name, before in mean.items():
        t = now[name].detach()
        m = mean[name] = _moved(before, t)
        real = (m.is_floating_point() or m.is_complex()) and m.layout == torch.strided
        if not real or name in latest:
            m.copy_(t)
        elif now[name].requires_grad:
            m.lerp_(t.to(m.dtype), share)
        else:
            # The mean of -inf and -inf, in a mask for instance, would be NaN.
            m.copy_(torch.where(m.isinf() | t.isinf(), t, m.lerp(t.to(m.dtype), share)))


def _moved(m: Tensor, t: Tensor) -> Tensor:
    """Return ``m`` where ``t`` is, in a type that holds both."""
    dtype = _wide(t.dtype)
    wider = m.dtype if m.dtype == dtype else torch.promote_types(m.dtype, dtype)
    return m.to(t.device, wider)


def beside(model: nn.Module, named: Mapping[str, Tensor]) -> Named:
    """Return copies where the model's own tensors are: states are loaded on the CPU."""
    ours = tensors_of(model)
    return {
        name: t.detach().to(ours[name].device, copy=True) for name, t in named.items()
    }


def check_like(model: nn.Module, named: Mapping[str, Tensor]) -> None:
    """Compare names and shapes with the model's.

    Raises:
        RuntimeError: a layer of the model has no shape yet.
        ValueError: they differ.
    """
    ours = tensors_of(model)
    check_made(ours)
    if unknown := ours.keys() ^ named.keys():
        raise ValueError(
            f"the state is of another model: {sorted(unknown)[0]} is in one of them "
            "only. Load it beside the model that it was saved with; wrappers such as "
            "DistributedDataParallel and torch.compile change names."
        )
    for name, t in ours.items():
        if t.shape != named[name].shape:
            raise ValueError(
                f"the state is of another model: {name} has the shape "
                f"{tuple(named[name].shape)} there and {tuple(t.shape)} here."
            )


def check_made(named: Named) -> None:
    """Refuse parameters and buffers that a first forward pass has yet to make.

    Raises:
        RuntimeError: there are some.
    """
    lazy = [name for name, t in named.items() if is_lazy(t)]
    if lazy:
        raise RuntimeError(
            f"{lazy[0]} has no shape before the first forward pass. Give the model a "
            "batch first: model(x)."
        )


def check_same(mean: Named, now: Named) -> None:
    """Compare the names and shapes of an average with those of the model now.

    Raises:
        RuntimeError: they differ.
    """
    other = mean.keys() ^ now.keys()
    other |= {k for k in mean.keys() & now.keys() if mean[k].shape != now[k].shape}
    if not other:
        return
    name = sorted(other)[0]
    raise RuntimeError(
        f"the model has other tensors than at the last update(): {name}. Call "
        "transfer() before you change the model, and begin a new average after that."
    )

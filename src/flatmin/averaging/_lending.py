"""Writes values into a model's tensors, and puts its own back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from flatmin.averaging._tensors import Named, weights_of
from flatmin.core._shards import local
from flatmin.diagnostics._still import differs

#: Writes a value into one of a model's tensors.
Write: TypeAlias = Callable[[nn.Module, Tensor, Tensor], None]


def put(model: nn.Module, named: Mapping[str, Tensor]) -> None:
    """Write tensors into the model's, in place, so that references stay valid.

    Raises:
        RuntimeError: a parameter takes no writes. All others are written by then.
    """
    ours = _everything(model)
    _each(_write, model, [(name, ours[name]) for name in ours if name in named], named)


@contextmanager
def restored(model: nn.Module) -> Generator[Named]:
    """Restore parameters and buffers after the block, even if it replaced them.

    Yields:
        Copies of the parameters, by name.

    Raises:
        RuntimeError: a parameter takes no writes. All others are restored by then.
    """
    ours = _everything(model)
    with torch.inference_mode(False), torch.no_grad():
        mine = {name: t.detach().clone() for name, t in ours.items()}
    # A pass may replace a buffer by one of another shape.
    places = [
        (cast("dict[str, Tensor | None]", slots), dict(slots))
        for m in model.modules()
        for slots in (m._parameters, m._buffers)  # pyright: ignore[reportPrivateUsage]
    ]
    try:
        yield {name: mine[name] for name in weights_of(model)}
    finally:
        # What FSDP2 has put into these places is let go of first.
        weights_of(model)
        for slots, then in places:
            slots.update(then)
        _each(_give_back, model, ours.items(), mine)


def changed_weights(model: nn.Module, own: Named, lent: Named) -> list[str]:
    """Return the names of parameters that are not as lent; NaN is equal to NaN.

    Args:
        model: the model to look at.
        own: copies of its own parameters; shapes and types have to be theirs.
        lent: values have to be these.
    """
    weights = weights_of(model)
    if other := weights.keys() ^ own.keys():
        return sorted(other)
    names = list(weights)
    rows = zip(
        names,
        local([p.detach() for p in weights.values()]),
        local([own[name] for name in names]),
        local([lent[name] for name in names]),
        strict=True,
    )
    return [n for n, p, mine, t in rows if not _fits(p, mine) or not _is_close(p, t)]


def _is_close(p: Tensor, t: Tensor) -> bool:
    return torch.allclose(p, t.to(p), rtol=0, atol=0, equal_nan=True)


def _everything(model: nn.Module) -> Named:
    """Return the parameters, then the buffers."""
    return {**weights_of(model), **dict(model.named_buffers())}


def _each(
    write: Write,
    model: nn.Module,
    ours: Iterable[tuple[str, Tensor]],
    values: Mapping[str, Tensor],
) -> None:
    """Write each value; go on after a failure, and raise it at the end."""
    failed: list[tuple[str, RuntimeError]] = []
    for name, t in ours:
        try:
            write(model, t, values[name])
        except RuntimeError as error:
            failed.append((name, error))
    # An autocast region around the call would reuse its casts of the weights.
    torch.clear_autocast_cache()
    for name, error in failed:
        raise RuntimeError(
            f"the parameter {name} cannot be written to: {error} Give the model one "
            "that has memory of its own: nn.Parameter(parameter.detach().clone())."
        ) from error


def _write(model: nn.Module, t: Tensor, value: Tensor) -> None:
    """Write a value; replace a buffer that cannot be written to."""
    weight = isinstance(t, nn.Parameter)
    if not weight and _has(t, value):
        return
    try:
        # Outside of inference mode, its tensors take no writes.
        with torch.inference_mode(t.is_inference()), torch.no_grad():
            t.copy_(value)
    except RuntimeError:
        if not weight:
            _replace(model, t, value.to(t))
        elif not _has(t, value):
            raise


def _give_back(model: nn.Module, t: Tensor, value: Tensor) -> None:
    """Write a value into a tensor that may have another shape, type or memory now."""
    with suppress(RuntimeError):
        if _fits(t, value):
            _write(model, t, value)
            return
    if isinstance(t, nn.Parameter):
        t.data = value
    else:
        _replace(model, t, value)


def _replace(model: nn.Module, old: Tensor, value: Tensor) -> None:
    """Put a copy of the value wherever the model has this buffer."""
    with torch.inference_mode(False), torch.no_grad():
        new = value.clone()
    for module in model.modules():
        buffers = module._buffers  # pyright: ignore[reportPrivateUsage]
        buffers |= {name: new for name, b in buffers.items() if b is old}


def _fits(t: Tensor, other: Tensor) -> bool:
    return (t.shape, t.dtype, t.device) == (other.shape, other.dtype, other.device)


def _has(t: Tensor, value: Tensor) -> bool:
    """Whether ``t`` has this value, bit for bit; False where torch cannot say."""
    ours, theirs = local([t.detach(), value.to(t)])
    if ours.layout != torch.strided or ours.is_quantized:
        return False
    with suppress(RuntimeError):
        return not differs(ours, theirs)
    return False

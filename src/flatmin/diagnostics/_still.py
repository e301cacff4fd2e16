"""What a measurement must leave as it was, besides the weights."""

from __future__ import annotations

import random
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]


@contextmanager
def still(model: nn.Module) -> Generator[None]:
    """Restore buffers and the global random streams afterwards.

    A DataLoader draws from torch's stream whenever it is read, shuffling or not.
    Inside, transformers do without the fast path that torch takes where no gradient is
    asked for: it sets padded positions to 0, so that it is another function.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    numpy = sys.modules.get("numpy")
    python = random.getstate()
    drawn = numpy.random.get_state() if numpy else None
    places = [(m._buffers, dict(m._buffers)) for m in model.modules()]  # pyright: ignore[reportPrivateUsage]
    kept = [(b, b.clone(), b._version) for b in model.buffers()]
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.random.fork_rng(_accelerators(model)):  # pyright: ignore
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        random.setstate(python)
        if numpy:
            numpy.random.set_state(drawn)
        for buffers, then in places:
            # A pass may have replaced buffers by new ones.
            buffers.update(then)
        _restore(kept)


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Within, the model is in evaluation mode; then each module is in its own again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def collecting(layers: Sequence[_BatchNorm]) -> Generator[None]:
    """Collect running statistics anew within; then give layers their momenta again.

    They become the mean of all batches, each with the same weight.
    """
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


@torch.no_grad()
def _restore(kept: list[tuple[Tensor, Tensor, int]]) -> None:
    """Write only buffers that were written to: an expanded one takes no writes."""
    for b, value, version in kept:
        if b._version != version:
            b.copy_(value)


def _accelerators(model: nn.Module) -> list[int]:
    """The devices of the model whose streams have to be kept."""
    return [d.index for d in {p.device for p in model.parameters()} if d.type == "cuda"]

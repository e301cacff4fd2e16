"""What a measurement must leave as it was, besides the weights."""

from __future__ import annotations

import random
import sys
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def still(model: nn.Module) -> Generator[None]:
    """Buffers and the global random streams are as before afterwards.

    A DataLoader draws from torch's stream whenever it is read, shuffling or not.
    """
    numpy = sys.modules.get("numpy")
    python = random.getstate()
    drawn = numpy.random.get_state() if numpy else None
    places = [(m._buffers, dict(m._buffers)) for m in model.modules()]  # pyright: ignore[reportPrivateUsage]
    kept = [(b, b.clone(), b._version) for b in model.buffers()]
    try:
        with torch.random.fork_rng(_accelerators(model)):  # pyright: ignore
            yield
    finally:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(drawn)
        for buffers, then in places:
            # A pass may have put new ones in their place.
            buffers.update(then)
        _restore(kept)


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """The model is in evaluation mode inside; each module is in its own afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def _restore(kept: list[tuple[Tensor, Tensor, int]]) -> None:
    """Write only what somebody has written to: an expanded buffer takes no writes."""
    for b, value, version in kept:
        if b._version != version:
            b.copy_(value)


def _accelerators(model: nn.Module) -> list[int]:
    """The devices of the model whose streams have to be kept."""
    return [d.index for d in {p.device for p in model.parameters()} if d.type == "cuda"]

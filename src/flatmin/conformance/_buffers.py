"""Running statistics and masks, which a second pass must not disturb."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.conformance import _problems as on
from flatmin.conformance._adapter import Adapter, Loss
from flatmin.conformance._check import AtMost, Measured, Wrong, check, worst

#: Switches the running statistics of a model's BatchNorm off or on.
Helper: TypeAlias = Callable[[nn.Module], object]


class Counting(nn.Module):
    """A custom layer with buffers for its number of calls and its inputs' mean."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Tensor
        self.mean: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        self.calls += 1
        self.mean.lerp_(x.detach().flatten(1).mean(0), 0.1)
        return x


def _off_one_pass(adapter: Adapter, layers: list[nn.Module]) -> float:
    """Measure how far buffers are from one pass per step, at constant weights."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 8), *layers, nn.Tanh(), nn.Linear(8, 3))
    twin = copy.deepcopy(model)
    optimizer = adapter.build(on.RESTING, model, on.RHO)
    for x, y in on.batches(3, dtype=torch.float32):
        passes = on.Passes(model, on.classify(model, (x, y)))
        adapter.step(optimizer, model, passes)
        if on.length(passes.eps()) == 0:
            raise Wrong("nothing was perturbed")
        twin(x)
    pairs = zip(model.buffers(), twin.buffers(), strict=True)
    return worst([(a.double() - b.double()).abs().max().item() for a, b in pairs])


@check(
    "C20",
    "BatchNorm with momentum=None is updated once per step, at w",
    "greatest difference of a buffer from one pass per step, after 3 steps",
    AtMost(1e-6),
)
def cumulative(adapter: Adapter) -> Measured:
    """Its statistics are plain means over the batches that it has counted."""
    return Measured(_off_one_pass(adapter, [nn.BatchNorm1d(8, momentum=None)]))


@check(
    "C21",
    "InstanceNorm and custom buffers are updated once per step, at w",
    "greatest difference of a buffer from one pass per step, after 3 steps",
    AtMost(1e-6),
)
def any_buffer(adapter: Adapter) -> Measured:
    """Test layers that no list of known norms contains."""
    instance = nn.Sequential(
        nn.Unflatten(1, (2, 4)),
        nn.InstanceNorm1d(2, track_running_stats=True),
        nn.Flatten(),
    )
    return Measured(_off_one_pass(adapter, [instance, Counting()]))


@check(
    "C19",
    "after two interrupted steps BatchNorm updates its statistics again",
    "difference of the layer's momentum from before; 1 more if it counts no batch",
    AtMost(0),
)
def interrupted(adapter: Adapter) -> Measured:
    """Interrupt between the passes; a helper, where one is needed, stays off twice."""
    if adapter.batch_norm is not None:
        return Measured(_momentum_lost(*adapter.batch_norm))
    torch.manual_seed(1)
    layer = nn.BatchNorm1d(8, momentum=0.25)
    model = nn.Sequential(nn.Linear(5, 8), layer, nn.Tanh(), nn.Linear(8, 3))
    optimizer = adapter.build(on.RESTING, model, on.RHO)
    loss = on.classify(model, on.batches(1, dtype=torch.float32)[0])
    for _ in range(2):
        with suppress(_Interrupted):
            adapter.step(optimizer, model, _interrupting(loss))
    layer.reset_running_stats()
    adapter.step(optimizer, model, loss)
    momentum = abs((layer.momentum or 0.0) - 0.25)
    counted = layer.num_batches_tracked
    return Measured(momentum + (0.0 if counted is not None and counted > 0 else 1.0))


def _momentum_lost(off: Helper, on_again: Helper) -> float:
    layer = nn.BatchNorm1d(3, momentum=0.25)
    off(layer)
    off(layer)
    on_again(layer)
    return abs((layer.momentum or 0.0) - 0.25)


class _Interrupted(Exception):
    """Raised in the second pass."""


def _interrupting(loss: Loss) -> Loss:
    """Return a loss that works once and then raises."""
    passes = iter([loss])

    def once() -> Tensor:
        for first in passes:
            return first()
        raise _Interrupted

    return once


@check(
    "C22",
    "dropout draws the same mask in both passes",
    "share of the entries whose masks differ",
    AtMost(0),
)
def dropout(adapter: Adapter) -> Measured:
    """Compare the masks that dropout makes of a tensor of ones."""
    model = on.network(torch.float32)
    data = on.batches(1, dtype=torch.float32)[0]
    masks: list[Tensor] = []

    def loss() -> Tensor:
        masks.append(F.dropout(torch.ones(12, 5)))
        return F.cross_entropy(model(data[0] * masks[-1]), data[1])

    adapter.step(adapter.build(on.PLAIN, model, on.RHO), model, loss)
    first, second = masks[:2]
    return Measured((first != second).double().mean().item())

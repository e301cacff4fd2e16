"""Gradients of several micro-batches in one step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from flatmin.conformance import _problems as on
from flatmin.conformance._adapter import Adapter, Loss
from flatmin.conformance._check import AtMost, Measured, check, needed, refusal

PARTS = 3


@check(
    "C38",
    "a loop over micro-batches uses all of them, or is refused",
    "greatest difference of a weight from the nearer of the two rules, after a step",
    AtMost(1e-6),
)
def micro_batches(adapter: Adapter) -> Measured:
    """Accept a perturbation per micro-batch (m-SAM), or one that all of them share."""
    step = needed(adapter.micro_batches, "loop over micro-batches")
    model = on.network()
    before = on.weights(model)
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    note = refusal(
        lambda: step(optimizer, model, _losses(model)),
        lambda: on.distance(on.weights(model), before),
    )
    if note:
        return Measured(0.0, note)
    off = {
        name: on.distance(on.weights(model), expected)
        for name, expected in _answers(adapter).items()
    }
    nearest = min(off, key=lambda name: off[name])
    return Measured(min(off["m-SAM"], off["one perturbation"]), nearest)


def _losses(model: nn.Module) -> list[Loss]:
    """Return a loss per micro-batch, each divided by their number."""
    return [_part(model, data) for data in on.batches(PARTS)]


def _part(model: nn.Module, data: tuple[Tensor, Tensor]) -> Loss:
    loss = on.classify(model, data)
    return lambda: loss() / PARTS


def _answers(adapter: Adapter) -> dict[str, on.Vector]:
    """Return the weights after a step: by the two right rules, and by a wrong loop."""
    alone = [_stepped(adapter, lambda losses, k=k: losses[k]) for k in range(PARTS)]
    start = on.weights(on.network())
    moves = [[a - b for a, b in zip(w, start, strict=True)] for w in alone]
    sums = [torch.stack(each).sum(0) for each in zip(*moves, strict=True)]
    return {
        "m-SAM": [w + move for w, move in zip(start, sums, strict=True)],
        "one perturbation": _stepped(adapter, lambda losses: lambda: _total(losses)),
        "the last micro-batch alone": alone[-1],
    }


def _stepped(adapter: Adapter, chosen: Callable[[list[Loss]], Loss]) -> on.Vector:
    """Return the weights after a step of SAM on the chosen loss."""
    model = on.network()
    return on.reference(adapter, model, on.PLAIN, [chosen(_losses(model))])


def _total(losses: list[Loss]) -> Tensor:
    return torch.stack([loss() for loss in losses]).sum()

"""Loss scaling."""

from __future__ import annotations

import torch
from torch.amp.grad_scaler import GradScaler

from flatmin.conformance import _problems as on
from flatmin.conformance._adapter import Adapter
from flatmin.conformance._check import (
    AtMost,
    Measured,
    Wrong,
    check,
    needed,
    refusal,
)

SCALE = 2.0**16


def new_scaler() -> GradScaler:
    """Return a scaler whose scale does not grow during a check."""
    return GradScaler("cpu", init_scale=SCALE, growth_interval=10**6)


@check(
    "C7",
    "GradScaler.step(optimizer, closure), positional, is right or refused",
    "difference of the update from a straight-line SAM, in lengths of the latter",
    AtMost(1e-2),
)
def positional(adapter: Adapter) -> Measured:
    """Scale the loss in the closure, as the wrappers of frameworks do."""
    needed(adapter.closure_step, "step(closure)")
    data = on.batches(1, dtype=torch.float32)[0]
    model, twin = on.network(torch.float32), on.network(torch.float32)
    before = on.weights(model)
    expected = on.reference(adapter, twin, on.PLAIN, [on.classify(twin, data)])
    optimizer, scaler = adapter.build(on.PLAIN, model, on.RHO), new_scaler()
    loss = on.classify(model, data)
    closure = on.closure_of(model, lambda: scaler.scale(loss()))
    closure()
    note = refusal(
        lambda: scaler.step(optimizer, closure),
        lambda: on.distance(on.weights(model), before),
    )
    if note:
        return Measured(0.0, note)
    scaler.update()
    update = on.length(_minus(on.weights(model), before))
    usual = on.length(_minus(expected, before))
    off = on.length(_minus(on.weights(model), expected))
    return Measured(off / usual, f"update x {update / usual:.4g}")


def _minus(a: on.Vector, b: on.Vector) -> on.Vector:
    return [x - y for x, y in zip(a, b, strict=True)]


@check(
    "C8",
    "GradScaler steps, both passes unscaled, are the steps without scaling",
    "greatest difference of a weight from a straight-line SAM after 5 steps",
    AtMost(1e-5),
)
def both_unscaled(adapter: Adapter) -> Measured:
    """Step in float32, with a scale at which the gradients do not overflow."""
    step = needed(adapter.scaled_step, "step under GradScaler")
    data = on.batches(5, dtype=torch.float32)
    model, twin = on.network(torch.float32), on.network(torch.float32)
    losses = [on.classify(twin, batch) for batch in data]
    expected = on.reference(adapter, twin, on.MOMENTUM, losses)
    optimizer, scaler = adapter.build(on.MOMENTUM, model, on.RHO), new_scaler()
    for batch in data:
        step(optimizer, model, on.classify(model, batch), scaler)
    if scaler.get_scale() != SCALE:
        raise Wrong(f"the scale went from {SCALE:g} to {scaler.get_scale():g}")
    return Measured(on.distance(on.weights(model), expected))

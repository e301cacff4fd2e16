"""What torch promises for its optimizers: closures, schedulers, compiled models."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from flatmin.conformance import _problems as on
from flatmin.conformance._adapter import Adapter, TakeStep
from flatmin.conformance._check import AtMost, Measured, Wrong, check, needed, worst


@check(
    "C11",
    "step(closure) needs no backward before it",
    "greatest difference of a weight from a straight-line SAM after 3 steps",
    AtMost(1e-6),
)
def closure(adapter: Adapter) -> Measured:
    """Call step(closure) as with torch's own optimizers."""
    step = needed(adapter.closure_step, "step(closure)")
    data = on.batches(3)
    twin, model = on.network(), on.network()
    expected = on.reference(
        adapter, twin, on.MOMENTUM, [on.classify(twin, d) for d in data]
    )
    optimizer = adapter.build(on.MOMENTUM, model, on.RHO)
    for batch in data:
        step(optimizer, on.closure_of(model, on.classify(model, batch)))
    return Measured(on.distance(on.weights(model), expected))


@check(
    "C12",
    "step(closure) returns the loss",
    "difference of what is returned from L(w)",
    AtMost(1e-6),
)
def returned(adapter: Adapter) -> Measured:
    """Compare the returned loss; a backward comes first, for those that need one."""
    step = needed(adapter.closure_step, "step(closure)")
    model = on.network()
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    once = on.closure_of(model, on.classify(model, on.batches(1)[0]))
    loss = once()
    value = step(optimizer, once)
    if not isinstance(value, Tensor | float):
        raise Wrong(f"step(closure) returned {type(value).__name__}")
    return Measured(abs(float(value) - loss.item()))


@check(
    "C24",
    "works under torch.compile(fullgraph=True)",
    "greatest difference of a weight from the same steps without, after 3 steps",
    AtMost(1e-6),
)
def compiled(adapter: Adapter) -> Measured:
    """Compile the model and, where the adapter has a step for it, the perturbation."""
    data = on.batches(3)
    eager = on.network()
    on.train(adapter, adapter.build(on.PLAIN, eager, on.RHO), eager, data)
    model = on.network()
    whole: Any = torch.compile(model, backend="eager", fullgraph=True)
    found = [_off(adapter, adapter.step, whole, eager)]
    if adapter.compiled_step is not None:
        found.append(_off(adapter, adapter.compiled_step, on.network(), eager))
    return Measured(worst(found))


def _off(
    adapter: Adapter, step: TakeStep, model: nn.Module, expected: nn.Module
) -> float:
    torch.compiler.reset()
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    for batch in on.batches(3):
        step(optimizer, model, on.classify(model, batch))
    return on.distance(on.weights(model), on.weights(expected))


@check(
    "C25",
    "a scheduler does not warn about the order of steps",
    "warnings in three steps",
    AtMost(0),
)
def order(adapter: Adapter) -> Measured:
    """Step the scheduler after each step of the optimizer."""
    model = on.network()
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    schedule = LambdaLR(adapter.handle(optimizer), lambda step: 0.9**step)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for batch in on.batches(3):
            on.train(adapter, optimizer, model, [batch])
            schedule.step()
    return Measured(sum("lr_scheduler.step()" in str(w.message) for w in caught))

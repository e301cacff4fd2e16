"""Saving, resuming, schedulers and parameter groups."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from flatmin.conformance import _problems as on
from flatmin.conformance._adapter import Adapter, Base
from flatmin.conformance._check import AtMost, Measured, Wrong, check, worst

ADAM = Base(Adam, {"lr": 0.05})


def tensors_in(value: Any, key: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in nested dicts and lists, with their keys."""
    if isinstance(value, Tensor):
        yield key, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from tensors_in(part, str(name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part, key)


def through_file(value: Any) -> Any:
    """Return a value after ``torch.save`` and a load with ``weights_only=True``."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@check(
    "C1",
    "20 steps are 10 steps, save, load, 10 steps",
    "greatest difference of a weight, over SGD with momentum and Adam",
    AtMost(0),
)
def resume(adapter: Adapter) -> Measured:
    """Stop and resume two bases, whose momentum has to survive."""
    found = {
        base.kind.__name__: resumed(adapter, base, 20, 10)
        for base in (on.MOMENTUM, ADAM)
    }
    note = ", ".join(f"{name} {figure:.2g}" for name, figure in found.items())
    return Measured(worst(list(found.values())), note if any(found.values()) else "")


def resumed(adapter: Adapter, base: Base, steps: int, at: int) -> float:
    """Measure how far a run that is interrupted ``at`` a step ends from a whole run."""
    data = on.batches(steps)
    whole = on.network()
    on.train(adapter, adapter.build(base, whole, on.RHO), whole, data)
    first = on.network()
    optimizer = adapter.build(base, first, on.RHO)
    on.train(adapter, optimizer, first, data[:at])
    saved = through_file([first.state_dict(), adapter.save(optimizer)])
    second = on.network()
    second.load_state_dict(saved[0])
    resumed = adapter.build(base, second, on.RHO)
    adapter.load(resumed, saved[1])
    on.train(adapter, resumed, second, data[at:])
    return on.distance(on.weights(second), on.weights(whole))


@check(
    "C2",
    "what is saved holds the base optimizer's momentum",
    "share of the parameters without a saved tensor of momentum",
    AtMost(0),
)
def momentum(adapter: Adapter) -> Measured:
    """Look for one buffer of the right shape per parameter."""
    model = on.network()
    optimizer = adapter.build(on.MOMENTUM, model, on.RHO)
    on.train(adapter, optimizer, model, on.batches(2))
    found = [t for key, t in tensors_in(adapter.save(optimizer)) if "momentum" in key]
    shapes = [t.shape for t in found]
    expected = [p.shape for p in model.parameters()]
    missing = sum(shapes.count(shape) < expected.count(shape) for shape in expected)
    return Measured(missing / len(expected))


@check(
    "C3",
    "a scheduler still acts after load_state_dict",
    "length of a step at learning rate 0, in lengths of a step before",
    AtMost(1e-3),
)
def scheduler(adapter: Adapter) -> Measured:
    """Make a scheduler before loading, and let it set the learning rate to zero."""
    model = on.network()
    data = on.batches(3)
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    before = on.weights(model)
    on.train(adapter, optimizer, model, data[:1])
    usual = on.distance(on.weights(model), before)
    saved = through_file(adapter.save(optimizer))
    resumed = adapter.build(on.PLAIN, model, on.RHO)
    schedule = LambdaLR(adapter.handle(resumed), lambda step: float(step < 1))
    adapter.load(resumed, saved)
    on.train(adapter, resumed, model, data[1:2])
    schedule.step()
    before = on.weights(model)
    on.train(adapter, resumed, model, data[2:])
    return Measured(on.distance(on.weights(model), before) / usual)


@check(
    "C18",
    "add_param_group works after construction",
    "greatest difference of a weight from a straight-line SAM after 3 steps",
    AtMost(1e-6),
)
def new_group(adapter: Adapter) -> Measured:
    """Append a layer to a model in training."""
    data = on.batches(4)
    twin, late = on.network(), nn.Linear(3, 3).double()
    base = on.MOMENTUM.build(twin)
    on.sam_step(adapter, base, twin, on.classify(twin, data[0]))
    model, mine = on.network(), nn.Linear(3, 3).double()
    mine.load_state_dict(late.state_dict())
    optimizer = adapter.build(on.MOMENTUM, model, on.RHO)
    on.train(adapter, optimizer, model, data[:1])
    twin.append(late)
    base.add_param_group({"params": list(late.parameters())})
    model.append(mine)
    groups = optimizer if hasattr(optimizer, "add_param_group") else None
    (groups or adapter.handle(optimizer)).add_param_group(
        {"params": list(mine.parameters())}
    )
    for batch in data[1:]:
        on.sam_step(adapter, base, twin, on.classify(twin, batch))
    on.train(adapter, optimizer, model, data[1:])
    return Measured(on.distance(on.weights(model), on.weights(twin)))


@check(
    "T6",
    "what is saved holds no copy of the weights, and resumes after 3 steps",
    "saved copies of the weights, one being the size of the model",
    AtMost(0),
)
def copies(adapter: Adapter) -> Measured:
    """Look for the weights at the last step's start, at its perturbed point and end."""
    off = resumed(adapter, on.PLAIN, 13, 3)
    if not off == 0:
        raise Wrong(f"10 steps after loading, a weight is off by {off:.2g}")
    model = on.network()
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    on.train(adapter, optimizer, model, on.batches(2))
    passes = on.Passes(model, on.classify(model, on.batches(3)[2]))
    adapter.step(optimizer, model, passes)
    places = [p for at in (*passes.at, on.weights(model)) for p in at]
    saved = [t for _, t in tensors_in(adapter.save(optimizer))]
    copied = [t for t in saved if any(torch.equal(t, place) for place in places)]
    size = sum(p.numel() for p in model.parameters())
    return Measured(sum(t.numel() for t in copied) / size)

"""Where the weights are: between the passes, after them, and after accidents."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from flatmin.conformance import _problems as on
from flatmin.conformance._adapter import Adapter, Base, Loss
from flatmin.conformance._check import (
    AtMost,
    Measured,
    Wrong,
    check,
    need_sams_formula,
    worst,
)


class Cautious(SGD):
    """Omits a step whose gradient is not finite, as GradScaler does."""

    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take SGD's step, or none."""
        del closure
        held = [p.grad for group in self.param_groups for p in group["params"]]
        if all(bool(g.isfinite().all()) for g in held if g is not None):
            super().step()


class Branching(nn.Module):
    """A network whose first layer can be skipped."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.maybe = nn.Linear(5, 5).double()
        self.head = nn.Linear(5, 3).double()

    def forward(self, x: Tensor, skip: bool) -> Tensor:
        """Return class scores."""
        return self.head(x if skip else torch.tanh(self.maybe(x)))


def _skipping(model: nn.Module, skipped: int) -> Loss:
    """Return a loss that skips the layer in one of its calls, counted from 0."""
    x, y = on.batches(1)[0]
    calls = itertools.count()  # Not in the module, where a SAM may rewind it.
    return lambda: F.cross_entropy(model(x, next(calls) == skipped), y)


def _loss(model: nn.Module, scale: float = 1.0) -> Any:
    data = on.batches(1)[0]
    return lambda: F.cross_entropy(model(data[0]), data[1]) * scale


@check(
    "C9",
    "a layer skipped in pass 2 alone is restored",
    "greatest move of a weight in a step at learning rate 0",
    AtMost(1e-6),
)
def skipped_in_second(adapter: Adapter) -> Measured:
    """Skip a layer whose gradient is then None when the weights are restored."""
    model = Branching()
    before = on.weights(model)
    optimizer = adapter.build(on.RESTING, model, on.RHO)
    eps = on.eps_of_step(adapter, optimizer, model, _skipping(model, 1))
    if on.length(eps) == 0:
        raise Wrong("nothing was perturbed")
    return Measured(on.distance(on.weights(model), before))


@check(
    "C10",
    "a layer skipped in pass 1 alone is trained by pass 2",
    "greatest difference of a weight from a straight-line SAM after a step",
    AtMost(1e-6),
)
def skipped_in_first(adapter: Adapter) -> Measured:
    """Skip a layer that then has no gradient to climb, but one to descend."""
    twin, model = Branching(), Branching()
    expected = on.reference(adapter, twin, on.PLAIN, [_skipping(twin, 0)])
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    adapter.step(optimizer, model, _skipping(model, 0))
    return Measured(on.distance(on.weights(model), expected))


@check(
    "C13",
    "a zero gradient changes nothing, and training goes on",
    "greatest difference of a weight from a run without the zero step",
    AtMost(1e-6),
)
def zero_gradient(adapter: Adapter) -> Measured:
    """Take a step with the loss times zero, then one of SAM."""
    twin, model = on.network(), on.network()
    expected = on.reference(adapter, twin, on.PLAIN, [_loss(twin)])
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    before = on.weights(model)
    adapter.step(optimizer, model, _loss(model, 0.0))
    moved = on.distance(on.weights(model), before)
    adapter.step(optimizer, model, _loss(model))
    return Measured(worst([moved, on.distance(on.weights(model), expected)]))


@check(
    "C17",
    "after an infinite gradient in pass 1, training goes on",
    "error of the next perturbation's length, in rho; the base omits bad steps",
    AtMost(1e-3),
)
def infinite_gradient(adapter: Adapter) -> Measured:
    """Make one entry of the first gradient infinite, once."""
    need_sams_formula(adapter)
    model = on.network()
    optimizer = adapter.build(Base(Cautious, {"lr": 0.1}), model, on.RHO)
    calls = 0

    def once() -> Tensor:
        nonlocal calls
        calls += 1
        value = _loss(model)()
        first = next(model.parameters())[0, 0]
        return value + first * torch.inf if calls == 1 else value

    adapter.step(optimizer, model, once)
    eps = on.eps_of_step(adapter, optimizer, model, _loss(model))
    bad = sum(int((~w.isfinite()).sum()) for w in on.weights(model))
    note = f"{bad} weights are not finite" if bad else ""
    return Measured(abs(on.length(eps) / on.RHO - 1), note)


@check(
    "C23",
    "the weights keep their storage",
    "parameters whose data_ptr changes during two steps",
    AtMost(0),
)
def storage(adapter: Adapter) -> Measured:
    """Look at the storage in every pass and after every step."""
    model = on.network()
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    home = [p.data_ptr() for p in model.parameters()]
    moved: set[int] = set()

    def look() -> None:
        for k, p in enumerate(model.parameters()):
            if p.data_ptr() != home[k]:
                moved.add(k)

    def loss() -> Tensor:
        look()
        return _loss(model)()

    for _ in range(2):
        adapter.step(optimizer, model, loss)
        look()
    return Measured(len(moved))


class Interrupted(Exception):
    """Raised by the second pass."""


@check(
    "T5",
    "an exception in pass 2 leaves the weights as they were",
    "greatest difference of a weight from where the step began",
    AtMost(0),
)
def interrupted(adapter: Adapter) -> Measured:
    """Raise an exception, as when memory runs out or a user presses Ctrl-C."""
    model = on.network(torch.float32)
    data = on.batches(1, dtype=torch.float32)[0]
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    passes = on.Passes(model, on.classify(model, data))

    def loss() -> Tensor:
        value = passes()
        if len(passes.at) == 2:
            raise Interrupted
        return value

    try:
        adapter.step(optimizer, model, loss)
    except Interrupted:
        if on.length(passes.eps()) == 0:
            raise Wrong("nothing was perturbed") from None
        return Measured(on.distance(on.weights(model), passes.at[0]))
    raise Wrong("there was no second pass, or its exception got lost")

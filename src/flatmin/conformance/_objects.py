"""Two optimizers in one: a base that wraps another, and calls of the base alone."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from flatmin.conformance import _problems as on
from flatmin.conformance._adapter import Adapter, Base, TakeStep
from flatmin.conformance._check import (
    REFUSALS,
    AtMost,
    Measured,
    NotApplicable,
    Wrong,
    check,
    first_line,
    refusal,
    worst,
)
from flatmin.conformance._mixed import new_scaler
from flatmin.conformance._state import resumed

STEPS = 6


class Lookahead(Optimizer):
    """Two fast steps of an inner SGD, then one slow step of half the way.

    It is written as in several packages: an `Optimizer` whose ``__init__`` was never
    called, without ``defaults``, and with a state of another shape than torch's.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        self.inner = SGD(params, **options)
        self._share()
        self.slow = [p.detach().clone() for p in self._parameters()]
        self.fast_steps = 0

    def _share(self) -> None:
        self.param_groups = self.inner.param_groups
        self.state = self.inner.state

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients as the inner optimizer does."""
        self.inner.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a fast step, and every second time a slow one."""
        loss = self.inner.step(closure)
        self.fast_steps += 1
        if self.fast_steps % 2 == 0:
            for slow, p in zip(self.slow, self._parameters(), strict=True):
                slow.lerp_(p, 0.5)
                p.copy_(slow)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the inner state, the slow weights and the count."""
        slow = [p.clone() for p in self.slow]
        fast = self.inner.state_dict()
        return {"fast": fast, "slow": slow, "fast_steps": self.fast_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.inner.load_state_dict(state_dict["fast"])
        self._share()
        self.slow = [p.clone() for p in state_dict["slow"]]
        self.fast_steps = state_dict["fast_steps"]


WRAPPED = Base(Lookahead, {"lr": 0.1, "momentum": 0.9})


@check(
    "C36",
    "a base that wraps another optimizer steps and resumes, or is refused",
    "greatest difference of a weight from a straight-line SAM and from no resuming",
    AtMost(1e-6),
)
def wrapped(adapter: Adapter) -> Measured:
    """Take six steps around a Lookahead; then the same with a stop after the third."""
    data = on.batches(STEPS)
    twin, model = on.network(), on.network()
    expected = on.reference(
        adapter, twin, WRAPPED, [on.classify(twin, d) for d in data]
    )
    built: list[Any] = []
    note = refusal(
        lambda: built.append(adapter.build(WRAPPED, model, on.RHO)), lambda: 0.0
    )
    if note:
        return Measured(0.0, note)
    on.train(adapter, built[0], model, data)
    off = on.distance(on.weights(model), expected)
    lost = resumed(adapter, WRAPPED, STEPS, STEPS // 2)
    return Measured(worst([off, lost]), f"steps {off:.2g}, resuming {lost:.2g}")


@check(
    "C37",
    "stepping or unscaling through the base object is right, or refused",
    "greatest difference of a weight from a straight-line SAM after 3 steps",
    AtMost(1e-5),
)
def two_identities(adapter: Adapter) -> Measured:
    """Step and unscale the base, as frameworks do that were given the base first."""
    found: dict[str, Measured] = {}
    if (step := adapter.base_step) is not None:
        found["step"] = _from_straight_line(adapter, torch.float64, step)
    if (scaled := adapter.base_unscaled_step) is not None:
        scaler = new_scaler()
        found["unscale_"] = _from_straight_line(
            adapter, torch.float32, lambda o, m, loss: scaled(o, m, loss, scaler)
        )
    if not found:
        raise NotApplicable("no base optimizer that a user could step")
    notes = [f"{name} {part.note}" for name, part in found.items() if part.note]
    return Measured(worst([part.figure for part in found.values()]), ", ".join(notes))


def _from_straight_line(
    adapter: Adapter, dtype: torch.dtype, step: TakeStep
) -> Measured:
    data = on.batches(3, dtype=dtype)
    twin, model = on.network(dtype), on.network(dtype)
    expected = on.reference(
        adapter, twin, on.MOMENTUM, [on.classify(twin, d) for d in data]
    )
    before = on.weights(model)
    optimizer = adapter.build(on.MOMENTUM, model, on.RHO)
    note = refusal(
        lambda: step(optimizer, model, on.classify(model, data[0])),
        lambda: on.distance(on.weights(model), before),
    )
    if note:
        return Measured(0.0, note)
    for batch in data[1:]:
        step(optimizer, model, on.classify(model, batch))
    return Measured(on.distance(on.weights(model), expected))


@check(
    "C39",
    "a deep copy of model and optimizer between the passes holds w, or is refused",
    "greatest difference of a copied weight from w, or of a weight after the step",
    AtMost(1e-6),
)
def copied(adapter: Adapter) -> Measured:
    """Copy as a snapshot of a run would, at learning rate zero."""
    model = on.network()
    optimizer = adapter.build(on.RESTING, model, on.RHO)
    copies: list[nn.Module] = []
    refused: list[str] = []
    passes = on.Passes(model, on.classify(model, on.batches(1)[0]))

    def loss() -> Tensor:
        value = passes()
        if len(passes.at) == 2:
            try:
                copies.append(copy.deepcopy([model, optimizer])[0])
            except REFUSALS as error:
                refused.append(f"refused: {first_line(error)}")
        return value

    adapter.step(optimizer, model, loss)
    if on.length(passes.eps()) == 0:
        raise Wrong("nothing was perturbed")
    places = [on.weights(each) for each in (*copies, model)]
    off = worst([on.distance(place, passes.at[0]) for place in places])
    return Measured(off, "".join(refused))

"""Bases that wrap other optimizers, or take their gradients from elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_optimizer
import torch
from opacus.optimizers import DPOptimizer
from timm.optim.lookahead import Lookahead
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from flatmin import (
    SAM,
    ae_sam,
    friendly_sam,
    interval_sam,
    looksam,
    momentum_sam,
    stale_sam,
)
from flatmin.optim._states import States
from tests.problems import assert_same, batch, loss_of, sam_steps, tensors, two_layers
from tests.reference.loop import sam_loop

DATA = batch(torch.float64)


class Pair(Optimizer):
    """One optimizer for matrices and one for the rest, as people use with Muon."""

    def __init__(self, model: nn.Module) -> None:
        matrices = [p for p in model.parameters() if p.dim() == 2]
        rest = [p for p in model.parameters() if p.dim() < 2]
        self.parts = [SGD(matrices, lr=0.1, momentum=0.9), Adam(rest, lr=0.01)]
        self.param_groups = [g for part in self.parts for g in part.param_groups]

    @property
    def state(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return {p: s for part in self.parts for p, s in part.state.items()}

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        del closure
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, content in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(content)


class Averaged(Optimizer):
    """Has the inner optimizer's state, and a state dict with an entry more."""

    def __init__(self, model: nn.Module) -> None:
        self.inner = AdamW(model.parameters(), lr=0.01)
        self.param_groups = self.inner.param_groups
        self.count = 0

    @property
    def state(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.state

    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.inner.step()
        self.count += 1

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {**self.inner.state_dict(), "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]
        self.inner.load_state_dict(state_dict)
        self.param_groups = self.inner.param_groups


class Forgetful(SGD):
    """Saves its groups alone."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": {}}


def momentum(model: nn.Module) -> SGD:
    return SGD(model.parameters(), lr=0.1, momentum=0.9)


def timm_lookahead(model: nn.Module) -> Optimizer:
    return Lookahead(momentum(model), k=2)


def other_lookahead(model: nn.Module) -> Optimizer:
    return pytorch_optimizer.Lookahead(momentum(model), k=2)


BASES: dict[str, Callable[[nn.Module], Any]] = {
    "pair": Pair,
    "averaged": Averaged,
    "timm": timm_lookahead,
    "pytorch_optimizer": other_lookahead,
}
METHODS: dict[str, Callable[..., SAM]] = {
    "sam": SAM,
    "interval": lambda base, model: interval_sam(base, model, k=3),
    "friendly": friendly_sam,
    "stale": lambda base, model: stale_sam(base, model, rho=0.1),
    "look": lambda base, model: looksam(base, model, k=3),
    "ae": lambda base, model: ae_sam(base, model, steps=20),
}
every_base = pytest.mark.parametrize("base", BASES)


@every_base
def test_steps_are_those_by_hand(base: str) -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    optimizer = SAM(BASES[base](model), model, rho=0.2)
    sam_steps(optimizer, model, DATA, 5)
    sam_loop(twin, BASES[base](twin), lambda: loss_of(twin, DATA), steps=5, rho=0.2)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-13, atol=1e-14)
    assert optimizer.param_groups[0]["sam_step"] == 5


@every_base
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_resumed_run_is_the_undisturbed_one(
    after: int, method: str, base: str
) -> None:
    model = two_layers()
    optimizer = METHODS[method](BASES[base](model), model)
    sam_steps(optimizer, model, DATA, after)
    weights, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    twin = two_layers()
    other = METHODS[method](BASES[base](twin), twin)
    twin.load_state_dict(weights)
    other.load_state_dict(state)
    assert other.param_groups[0]["sam_step"] == after
    for each, its in ((model, optimizer), (twin, other)):
        sam_steps(its, each, DATA, 5)
    assert_same(tensors(model), tensors(twin))


@every_base
def test_the_momentum_within_is_found(base: str) -> None:
    model = two_layers()
    optimizer = momentum_sam(BASES[base](model), model, rho=0.3, track=True)
    sam_steps(optimizer, model, DATA, 2)
    length = optimizer.statistics.eps_norm
    assert length is not None
    assert float(length) == pytest.approx(0.3)


def test_the_base_within_a_wrapper_cannot_have_another_sam() -> None:
    model = two_layers()
    inner = momentum(model)
    optimizer = SAM(inner, model)
    with pytest.raises(ValueError, match="already belongs to a SAM"):
        SAM(Lookahead(inner), model)
    sam_steps(optimizer, model, DATA, 1)


def test_a_method_that_remembers_refuses_a_base_that_does_not_save() -> None:
    model = two_layers()
    sam_steps(SAM(Forgetful(model.parameters(), lr=0.1), model), model, DATA, 1)
    with pytest.raises(ValueError, match=r"does not save .* keeps friend"):
        friendly_sam(Forgetful(model.parameters(), lr=0.1), model)


def test_asking_where_the_state_is_leaves_none() -> None:
    model = two_layers()
    for base in BASES:
        optimizer = friendly_sam(BASES[base](model), model)
        for part in (optimizer.base, *vars(optimizer.base).values()):
            state = getattr(part, "state", {})
            assert not any("sam_trace" in entry for entry in state.values())
        assert not any("sam_trace" in str(x) for x in optimizer.state_dict().values())


@every_base
def test_asking_where_the_state_is_leaves_no_entry(base: str) -> None:
    model = two_layers()
    built = BASES[base](model)
    before = {p: dict(entry) for p, entry in States(built).items()}
    friendly_sam(built, model)
    assert {p: dict(entry) for p, entry in States(built).items()} == before


def test_the_state_of_a_parameter_is_the_entry_itself_where_one_optimizer_has_it() -> (
    None
):
    model = two_layers()
    base, (first, *_) = momentum(model), [*model.parameters()]
    states = States(base)
    assert first not in states
    assert states.get(first) is None
    base.state[first]["a"] = 1
    assert states[first] is base.state[first]


def test_the_state_of_a_parameter_joins_the_entries_of_several_optimizers() -> None:
    model = two_layers()
    first = next(iter(model.parameters()))
    base: Any = momentum(model)
    base.inner = momentum(model)
    base.state[first]["a"], base.inner.state[first]["b"] = 1, 2
    assert States(base)[first] == {"a": 1, "b": 2}


# Gradients from elsewhere, and rates that are none.


class PerExample(SGD):
    """As Opacus does: makes the gradient of those of single examples."""

    @property
    def grad_samples(self) -> list[Tensor]:
        return []


class Holder(SGD):
    """Holds such a one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), lr=0.1)
        self.private = PerExample(model.parameters(), lr=0.1)


def test_a_base_of_gradients_of_single_examples_is_refused() -> None:
    model = two_layers()
    for base in (PerExample(model.parameters(), lr=0.1), Holder(model)):
        with pytest.raises(ValueError, match=r"PerExample .* \(\.grad_sample"):
            SAM(base, model)


def test_opacus_is_refused() -> None:
    model = two_layers()
    base = DPOptimizer(
        momentum(model), noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=4
    )
    with pytest.raises(ValueError, match=r"DPOptimizer .* single examples"):
        SAM(base, model)


class WithoutRate(SGD):
    """As Adafactor with relative steps: the group has a rate of None."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] = 0.1
        loss = super().step(closure)
        for group in self.param_groups:
            group["lr"] = None
        return loss


def test_a_rate_of_none_is_no_trial_step() -> None:
    model = two_layers()
    momentum(model)  # torch puts hooks around a class once there is an object of it
    base = WithoutRate(model.parameters(), lr=0.1)
    base.param_groups[0]["lr"] = None
    optimizer = SAM(base, model)
    sam_steps(optimizer, model, DATA, 2)
    assert optimizer.param_groups[0]["sam_step"] == 2
    with pytest.raises(RuntimeError, match="finished probes"):
        optimizer.step()

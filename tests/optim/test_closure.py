"""``step(closure)``, torch's own convention, is the same engine."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from flatmin.core import Step, TwoPoint
from tests.problems import (
    Noisy,
    Quadratic,
    assert_same,
    assert_same_state,
    batch,
    loss_of,
    sam_steps,
    tensors,
)
from tests.registry import ROWS, Row, name_of

DATA = batch()


def closure_of(
    optimizer: SAM, model: nn.Module, calls: list[Tensor]
) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, DATA)
        loss.backward()
        calls.append(loss)
        return loss

    return closure


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_steps_with_a_closure_equal_probes(row: Row) -> None:
    model = Noisy()
    twin = copy.deepcopy(model)
    optimizer, other = row.build(model), row.build(twin)
    torch.manual_seed(1)
    sam_steps(optimizer, model, DATA, 5)
    torch.manual_seed(1)
    for _ in range(5):
        calls: list[Tensor] = []
        loss = other.step(closure_of(other, twin, calls))
        assert len(calls) == 2
        assert loss == calls[0]
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


def test_the_clean_loss_is_returned() -> None:
    model = Quadratic()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=1.0)
    clean = model().item()

    def closure() -> Tensor:
        loss = model()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss.item() == clean
    assert not loss.requires_grad
    assert optimizer.sharpness is not None
    assert optimizer.sharpness > 0


def test_a_closed_gate_calls_the_closure_once() -> None:
    def never(step: Step) -> bool:
        return False

    model = Noisy()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, method=TwoPoint(gate=never))
    calls: list[Tensor] = []
    assert optimizer.step(closure_of(optimizer, model, calls)) == calls[0]
    assert len(calls) == 1


def test_a_closure_may_return_nothing() -> None:
    model = Quadratic()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    expected = model.w.detach() - 0.1 * model.sam_gradient(0.05)

    def closure() -> None:
        model().backward()

    assert optimizer.step(closure) is None
    torch.testing.assert_close(model.w.detach(), expected, rtol=1e-13, atol=0)


def test_a_closure_may_return_a_number() -> None:
    model = Quadratic()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    clean = model().item()

    def closure() -> float:
        loss = model()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == pytest.approx(clean)


def test_a_closure_has_gradients_where_they_are_switched_off() -> None:
    model = Quadratic()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    expected = model.w.detach() - 0.1 * model.sam_gradient(0.05)
    with torch.no_grad():
        optimizer.step(closure_on(model))
    torch.testing.assert_close(model.w.detach(), expected, rtol=1e-13, atol=0)


def closure_on(model: Quadratic) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        loss = model()
        loss.backward()
        return loss

    return closure


def test_a_step_without_closure_returns_none() -> None:
    model = Quadratic()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    for _ in optimizer.probes():
        model().backward()
    assert optimizer.step() is None


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_closure_that_fails_leaves_the_weights(chosen: int) -> None:
    model = Quadratic()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    before, calls = model.w.detach().clone(), []

    def closure() -> Tensor:
        if len(calls) == chosen:
            raise KeyError
        calls.append(1)
        return closure_on(model)()

    with pytest.raises(KeyError):
        optimizer.step(closure)
    assert torch.equal(model.w, before)
    optimizer.step(closure_on(model))

"""What ``step(closure)`` does with gradients that are there, and values it is given."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM, stale_sam
from tests.problems import (
    assert_same,
    batch,
    gradient,
    loss_of,
    passes,
    sam_steps,
    tensors,
    two_layers,
    untouched,
)

DATA = batch(torch.float64)
KEPT = "gradients that the closure does not clear"


def sam(model: nn.Module) -> SAM:
    return SAM(
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model, rho=0.2
    )


def closure_of(
    model: nn.Module, clear: Callable[[], object] = lambda: None
) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        clear()
        loss = loss_of(model, DATA)
        loss.backward()
        return loss

    return closure


def no_closure() -> None:
    """What Lightning passes in manual optimization."""


def test_gradients_that_the_closure_does_not_clear_are_refused() -> None:
    model = two_layers()
    optimizer = sam(model)
    loss_of(model, DATA).backward()
    before = [gradient(p) for p in model.parameters()]
    with untouched(model), pytest.raises(RuntimeError, match=KEPT):
        optimizer.step(closure_of(model))
    assert all(p.grad is g for p, g in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("what", ["sam", "base", "model"])
@pytest.mark.parametrize("calls", [1, 2])
def test_gradients_that_the_closure_clears_do_not_count(
    calls: int, what: str, to_none: bool
) -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    optimizer, other = sam(model), sam(twin)
    targets = {"sam": optimizer, "base": optimizer.base, "model": model}

    def closure() -> None:
        targets[what].zero_grad(set_to_none=to_none)
        for _ in range(calls):
            (loss_of(model, DATA) / calls).backward()

    for p in model.parameters():
        p.grad = torch.full_like(p, 1e6)
    optimizer.step(closure)
    for _ in other.probes():
        for _ in range(calls):
            (loss_of(twin, DATA) / calls).backward()
    other.step()
    assert_same(tensors(model), tensors(twin))


def test_a_parameter_that_the_closure_does_not_reach_tells_nothing_else() -> None:
    model = two_layers()
    model.register_parameter("spare", nn.Parameter(torch.ones(2).double()))
    for clear, to_none in ((True, True), (True, False), (False, True)):
        optimizer = sam(model)
        for p in model.parameters():
            p.grad = torch.ones_like(p)

        def zero(optimizer=optimizer, clear=clear, to_none=to_none) -> None:
            if clear:
                optimizer.zero_grad(set_to_none=to_none)

        if clear:
            optimizer.step(closure_of(model, zero))
        else:
            with pytest.raises(RuntimeError, match=KEPT):
                optimizer.step(closure_of(model, zero))


def test_zeros_that_the_closure_adds_to_are_no_loss() -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    optimizer, other = sam(model), sam(twin)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step(closure_of(model))
    sam_steps(other, twin, DATA, 1)
    assert_same(tensors(model), tensors(twin))


def test_the_gradients_of_the_last_step_need_not_be_cleared() -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    optimizer, other = sam(model), sam(twin)
    for _ in range(3):
        optimizer.step(closure_of(model))
    sam_steps(other, twin, DATA, 3)
    assert_same(tensors(model), tensors(twin))


def test_no_hook_stays_on_a_parameter() -> None:
    model = two_layers()
    optimizer = sam(model)
    loss_of(model, DATA).backward()
    optimizer.step(closure_of(model, model.zero_grad))
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_an_error_in_the_closure_brings_the_gradients_back() -> None:
    model = two_layers()
    optimizer = sam(model)
    loss_of(model, DATA).backward()
    before = [gradient(p) for p in model.parameters()]

    def closure() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        optimizer.step(closure)
    assert all(p.grad is g for p, g in zip(model.parameters(), before, strict=True))
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


# After a finished loop.


def test_a_closure_that_does_nothing_keeps_the_gradient_of_the_loop() -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    optimizer, other = sam(model), sam(twin)
    for _ in range(2):
        passes(optimizer, model, DATA)
        assert optimizer.step(no_closure) is None
    sam_steps(other, twin, DATA, 2)
    assert_same(tensors(model), tensors(twin))


def test_what_a_closure_after_a_loop_returns_comes_back() -> None:
    model = two_layers()
    optimizer = sam(model)
    passes(optimizer, model, DATA)
    assert optimizer.step(lambda: 3.5) == 3.5


@pytest.mark.parametrize("clears", [True, False])
def test_a_closure_that_makes_gradients_after_a_loop_is_refused(clears: bool) -> None:
    model = two_layers()
    optimizer = sam(model)
    passes(optimizer, model, DATA)
    clear = model.zero_grad if clears else (lambda: None)
    with untouched(model), pytest.raises(RuntimeError, match="changed the gradients"):
        optimizer.step(closure_of(model, clear))


def test_a_closure_after_a_loop_that_was_given_up_is_a_new_step() -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    optimizer, other = sam(model), sam(twin)
    passes(optimizer, model, DATA)
    model.zero_grad()
    optimizer.step(closure_of(model))
    sam_steps(other, twin, DATA, 1)
    assert_same(tensors(model), tensors(twin))


# What a closure returns.


def test_a_tuple_and_a_mapping_come_back_and_tell_the_loss() -> None:
    for give in (
        lambda loss, out: (loss, out),
        lambda loss, out: [loss, out],
        lambda loss, out: {"loss": loss, "out": out},
    ):
        model = two_layers()
        optimizer, given = sam(model), []

        def closure(model=model, give=give, given=given) -> Any:
            model.zero_grad()
            out = model(DATA[0])
            loss = nn.functional.cross_entropy(out, DATA[1])
            loss.backward()
            given.append(give(loss, out))
            return given[-1]

        assert optimizer.step(closure) is given[0]
        assert optimizer.sharpness is not None
        assert optimizer.sharpness > 0


def test_several_losses_come_back_and_tell_nothing() -> None:
    model = two_layers()
    optimizer = sam(model)
    losses = torch.tensor([1.0, 2.0])

    def closure() -> Tensor:
        closure_of(model)()
        return losses

    assert torch.equal(optimizer.step(closure), losses)
    assert optimizer.sharpness is None


def test_an_empty_answer_comes_back() -> None:
    model = two_layers()

    def closure() -> tuple[()]:
        closure_of(model)()
        return ()

    assert sam(model).step(closure) == ()


def test_a_method_without_a_pass_at_w_returns_none() -> None:
    model = two_layers()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = stale_sam(base, model, rho=0.1)
    assert optimizer.step(closure_of(model)) is not None
    assert optimizer.step(closure_of(model)) is None

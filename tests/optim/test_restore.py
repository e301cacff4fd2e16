"""However a loop is left, every weight has its bits and its storage again."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from flatmin import SAM
from tests.problems import (
    Branching,
    Odd,
    Tied,
    batch,
    gradient,
    loss_of,
    mlp,
    passes,
    sam_steps,
    untouched,
)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
MODELS = [lambda: mlp(torch.float32), Tied, Odd]
MODEL_NAMES = ["mlp", "tied", "odd"]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_model = pytest.mark.parametrize("build", MODELS, ids=MODEL_NAMES)
every_pass = pytest.mark.parametrize("chosen", [0, 1])


def sam(model: nn.Module, *, lr: float = 0.1, rho: float = 0.7) -> SAM:
    return SAM(torch.optim.SGD(model.parameters(), lr=lr), model, rho=rho)


def moved(model: nn.Module, before: list[torch.Tensor]) -> bool:
    pairs = zip(model.parameters(), before, strict=True)
    return any(not torch.equal(p, b) for p, b in pairs)


class Interrupted(Exception):
    pass


def raise_in(chosen: int, optimizer: SAM, model: nn.Module, dtype: torch.dtype):
    for probe in optimizer.probes():
        loss_of(model, batch(dtype)).backward()
        if probe.index == chosen:
            raise Interrupted


@every_dtype
@every_model
def test_after_a_loop(build: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    model = build().to(dtype)
    before = [p.detach().clone() for p in model.parameters()]
    with untouched(model):
        for probe in sam(model).probes():
            assert moved(model, before) == probe.perturbed
            loss_of(model, batch(dtype)).backward()


@every_dtype
@every_model
@every_pass
def test_after_an_exception(
    build: Callable[[], nn.Module], dtype: torch.dtype, chosen: int
) -> None:
    model = build().to(dtype)
    optimizer = sam(model)
    with untouched(model), pytest.raises(Interrupted):
        raise_in(chosen, optimizer, model, dtype)
    with untouched(model):
        passes(optimizer, model, batch(dtype))


@every_dtype
@every_model
@every_pass
def test_after_a_break(
    build: Callable[[], nn.Module], dtype: torch.dtype, chosen: int
) -> None:
    model = build().to(dtype)
    optimizer = sam(model)
    with untouched(model):
        for probe in optimizer.probes():
            loss_of(model, batch(dtype)).backward()
            if probe.index == chosen:
                break
    with untouched(model):
        passes(optimizer, model, batch(dtype))


@every_dtype
@every_pass
def test_after_a_deleted_iterator(dtype: torch.dtype, chosen: int) -> None:
    model = mlp(dtype)
    optimizer = sam(model)
    with untouched(model):
        iterator = iter(optimizer.probes())
        for _ in range(chosen + 1):
            next(iterator)
            loss_of(model, batch(dtype)).backward()
        del iterator
    with untouched(model):
        passes(optimizer, model, batch(dtype))


@every_dtype
@every_pass
def test_a_parameter_without_a_gradient_in_one_pass(
    dtype: torch.dtype, chosen: int
) -> None:
    model = Branching(chosen).to(dtype)
    before = model.maybe.weight.detach().clone()
    with untouched(model):
        for probe in sam(model).probes():
            stands = torch.equal(model.maybe.weight, before)
            assert stands == (chosen == 0 or not probe.perturbed)
            loss_of(model, batch(dtype)).backward()
            assert (model.maybe.weight.grad is None) == (probe.index == chosen)


def test_a_parameter_without_a_gradient_in_both_passes_is_not_stepped() -> None:
    model = Branching(0, 1)
    optimizer = sam(model)
    before = model.maybe.weight.detach().clone()
    passes(optimizer, model, batch())
    optimizer.step()
    assert torch.equal(model.maybe.weight, before)
    assert model.maybe.weight.grad is None


def test_a_parameter_without_a_gradient_in_an_earlier_step_is_not_moved() -> None:
    # Steps 1 and 2 are passes 0, 1 and 2, 3: what was moved once must not move now.
    model = Branching(2, 3)
    optimizer = sam(model)
    passes(optimizer, model, batch())
    optimizer.zero_grad()
    with untouched(model):
        before = model.maybe.weight.detach().clone()
        for _ in optimizer.probes():
            assert torch.equal(model.maybe.weight, before)
            loss_of(model, batch()).backward()


@every_dtype
@every_pass
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite(
    dtype: torch.dtype, chosen: int, bad: float
) -> None:
    model = mlp(dtype)
    before = [p.detach().clone() for p in model.parameters()]
    with untouched(model):
        for probe in sam(model).probes():
            assert moved(model, before) == (probe.perturbed and chosen == 1)
            loss_of(model, batch(dtype)).backward()
            if probe.index == chosen:
                gradient(next(model.parameters())).fill_(bad)


@every_dtype
@pytest.mark.parametrize("size", [0.0, 1e-7, 1e4])
def test_gradients_of_any_size_give_finite_weights(
    dtype: torch.dtype, size: float
) -> None:
    model = mlp(dtype)
    optimizer = sam(model)
    for probe in optimizer.probes():
        loss_of(model, batch(dtype)).backward()
        for p in model.parameters():
            assert p.isfinite().all()
            if probe.index == 0:
                gradient(p).fill_(size)
    assert optimizer.unperturbed_steps == (size == 0)


@every_dtype
@every_model
def test_steps_with_a_learning_rate_of_zero(
    build: Callable[[], nn.Module], dtype: torch.dtype
) -> None:
    model = build().to(dtype)
    with untouched(model):
        sam_steps(sam(model, lr=0.0), model, batch(dtype), 3)


@pytest.mark.parametrize("rho", [0.05, 0.2, 2.0])
def test_100_restored_steps_do_not_drift(rho: float) -> None:
    model = nn.Linear(50, 20)
    optimizer = sam(model, lr=0.0, rho=rho)
    with untouched(model):
        for _ in range(100):
            for _ in optimizer.probes():
                model.weight.grad = torch.ones_like(model.weight)
            optimizer.step()


def test_tied_weights_are_perturbed_once() -> None:
    model = Tied().double()
    w = model.encode.weight.detach().clone()
    optimizer = sam(model)
    grads = []
    for probe in optimizer.probes():
        if probe.perturbed:
            length = torch.cat([g.flatten() for g in grads]).norm()
            eps = 0.7 * grads[0] / length
            torch.testing.assert_close(model.encode.weight.detach(), w + eps)
        loss_of(model, batch(torch.float64)).backward()
        grads = [gradient(p).clone() for p in model.parameters()]
    assert model.decode.weight is model.encode.weight


def test_a_frozen_parameter_neither_moves_nor_counts() -> None:
    model = Odd()
    frozen = model.frozen.detach().clone()
    optimizer, length = sam(model), 0.0
    for probe in optimizer.probes():
        assert torch.equal(model.frozen, frozen)
        loss_of(model, batch()).backward()
        if probe.index == 0:
            # A gradient from before it was frozen, say.
            model.frozen.grad = torch.full_like(model.frozen, 1e6)
            grads = [p.grad for p in model.parameters() if p.requires_grad]
            flat = torch.cat([g.flatten() for g in grads if g is not None])
            length = flat.double().norm().item()
    assert optimizer.statistics.grad_norm is not None
    assert optimizer.statistics.grad_norm.item() == pytest.approx(length, rel=1e-6)


def test_a_parameter_that_is_unfrozen_later_takes_part() -> None:
    model = mlp(torch.float32)
    first = next(model.parameters()).requires_grad_(False)
    optimizer = sam(model)
    for trains in (False, True):
        first.requires_grad_(trains)
        before = first.detach().clone()
        optimizer.zero_grad()
        for probe in optimizer.probes():
            assert torch.equal(first, before) == (not (trains and probe.perturbed))
            loss_of(model, batch()).backward()


def test_a_non_contiguous_parameter_moves_in_its_own_layout() -> None:
    model = Odd()
    assert not model.turned.is_contiguous()
    w = model.turned.detach().clone()
    eps = torch.zeros_like(w)
    for probe in sam(model).probes():
        if probe.perturbed:
            torch.testing.assert_close(model.turned.detach(), w + eps)
        loss_of(model, batch()).backward()
        length = torch.cat(
            [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        ).norm()
        eps = 0.7 * gradient(model.turned) / length


def test_a_model_moved_between_steps_is_perturbed_where_it_is() -> None:
    model, data = mlp(torch.float32), batch()
    optimizer = sam(model)
    passes(optimizer, model, data)
    optimizer.zero_grad()
    model.double()
    with untouched(model):
        passes(optimizer, model, batch(torch.float64))
    assert optimizer.sharpness is not None
    assert optimizer.sharpness.dtype == torch.float64
    assert optimizer.sharpness > 0

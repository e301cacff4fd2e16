"""Loss scaling: scaled and unscaled runs agree, and an overflow skips the step."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import StepLR

from flatmin import SAM
from tests.problems import (
    Noisy,
    assert_same,
    assert_same_state,
    batch,
    gradient,
    loss_of,
    mlp,
    sam_steps,
    snapshot,
    untouched,
)

DATA = batch()


def sam(model: nn.Module) -> SAM:
    return SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model)


def scaler_of(scale: float) -> GradScaler:
    return GradScaler("cpu", init_scale=scale, growth_interval=10**6)


def scaled_step(
    optimizer: SAM, model: nn.Module, scaler: GradScaler, *, bad: tuple[int, ...] = ()
) -> None:
    for probe in optimizer.probes():
        scaler.scale(loss_of(model, DATA)).backward()
        if probe.index in bad:
            gradient(next(model.parameters())).fill_(math.inf)
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 1e6)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("scale", [2.0**16, 2.0**40])
def test_scaled_and_unscaled_runs_agree(scale: float) -> None:
    model, twin = mlp(torch.float32), mlp(torch.float32)
    twin.load_state_dict(model.state_dict())
    sam_steps(sam(twin), twin, DATA, 10)
    optimizer, scaler = sam(model), scaler_of(scale)
    for _ in range(10):
        scaled_step(optimizer, model, scaler)
    for p, t in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, t, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [(1,), (0, 1)])
def test_an_overflow_in_the_descent_skips_the_step_and_lowers_the_scale_once(
    bad: tuple[int, ...],
) -> None:
    model = Noisy()
    optimizer, scaler = sam(model), scaler_of(2.0**16)
    with untouched(model):
        scaled_step(optimizer, model, scaler, bad=bad)
    assert scaler.get_scale() == 2.0**15
    assert optimizer.param_groups[0]["sam_step"] == 0
    assert not optimizer.state
    scaled_step(optimizer, model, scaler)
    assert scaler.get_scale() == 2.0**15
    assert optimizer.param_groups[0]["sam_step"] == 1


def test_an_overflow_in_the_ascent_alone_gives_a_plain_step() -> None:
    model, twin = Noisy(), Noisy()
    twin.load_state_dict(model.state_dict())
    base = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(1)
    (loss_of(twin, DATA) * 2.0**16).backward()
    for p in twin.parameters():
        gradient(p).div_(2.0**16)
    base.step()
    optimizer, scaler = sam(model), scaler_of(2.0**16)
    torch.manual_seed(1)
    scaled_step(optimizer, model, scaler, bad=(0,))
    assert_same(snapshot(model), snapshot(twin))
    assert optimizer.unperturbed_steps == 1
    assert scaler.get_scale() == 2.0**16


def closure_of(
    optimizer: SAM, model: nn.Module, scaler: GradScaler
) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, DATA)
        scaler.scale(loss).backward()
        return loss

    return closure


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_scaler_with_a_closure_is_refused_before_anything_moves(
    scheduled: bool,
) -> None:
    model, scaler = mlp(torch.float32), scaler_of(2.0**16)
    optimizer = sam(model)
    if scheduled:
        StepLR(optimizer, 1)
    closure = closure_of(optimizer, model, scaler)
    closure()
    with untouched(model), pytest.raises(RuntimeError, match="probes"):
        scaler.step(optimizer, closure)
    assert not optimizer.state


def test_a_scaler_with_a_closure_is_refused_if_there_are_no_gradients_yet() -> None:
    model, scaler = mlp(torch.float32), scaler_of(2.0**16)
    optimizer = sam(model)
    # Before its first loss a scaler itself refuses any step.
    scaler.scale(torch.ones(()))
    with untouched(model), pytest.raises(RuntimeError, match="closure makes"):
        scaler.step(optimizer, closure_of(optimizer, model, scaler))


def test_what_the_refusal_advises_works() -> None:
    model, twin, scaler = mlp(torch.float32), mlp(torch.float32), scaler_of(2.0**16)
    twin.load_state_dict(model.state_dict())
    sam_steps(sam(twin), twin, DATA, 3)
    optimizer = sam(model)
    closure = closure_of(optimizer, model, scaler)
    for _ in range(3):
        for _ in optimizer.probes():
            closure()
        scaler.step(optimizer)
        scaler.update()
    for p, t in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, t, rtol=1e-5, atol=1e-6)


def test_a_disabled_scaler_with_a_closure_is_a_step_with_a_closure() -> None:
    model, twin = mlp(torch.float32), mlp(torch.float32)
    twin.load_state_dict(model.state_dict())
    sam_steps(sam(twin), twin, DATA, 3)
    optimizer, scaler = sam(model), GradScaler("cpu", enabled=False)
    closure = closure_of(optimizer, model, scaler)
    for _ in range(3):
        loss = scaler.step(optimizer, closure)
        assert loss is not None
        scaler.update()
    assert_same(snapshot(model), snapshot(twin))


def test_a_closure_without_a_scaler_may_scale_its_loss() -> None:
    model = mlp(torch.float32)
    optimizer = sam(model)
    optimizer.step(closure_of(optimizer, model, scaler_of(1.0)))
    assert optimizer.param_groups[0]["sam_step"] == 1


def trained_in_float16(model: nn.Module, *, overflows: bool) -> SAM:
    """Three steps; before the second, one whose loss scale is too large for float16."""
    optimizer, scaler = sam(model), scaler_of(2.0**10)
    x, y = DATA
    for k in range(4):
        if k == 1 and not overflows:
            continue
        if k == 1:
            scaler.update(2.0**40)
        for _ in optimizer.probes():
            with torch.autocast("cpu", dtype=torch.float16):
                loss = loss_of(model, (x.roll(k, 1), y))
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if k == 1:
            assert scaler.get_scale() == 2.0**39
            scaler.update(2.0**10)
    assert scaler.get_scale() == 2.0**10
    return optimizer


def test_a_float16_run_with_an_overflow_is_one_without_that_batch() -> None:
    model, twin = mlp(torch.float32), mlp(torch.float32)
    twin.load_state_dict(model.state_dict())
    optimizer = trained_in_float16(model, overflows=True)
    other = trained_in_float16(twin, overflows=False)
    assert_same(snapshot(model), snapshot(twin))
    assert_same_state(optimizer, other)
    assert optimizer.param_groups[0]["sam_step"] == 3
    assert optimizer.unperturbed_steps == 1
    assert other.unperturbed_steps == 0


@pytest.mark.parametrize("index", [0, 1])
def test_unscaling_one_pass_of_a_loop_is_refused(index: int) -> None:
    model = mlp(torch.float32)
    optimizer, scaler = sam(model), scaler_of(2.0**10)

    def loop() -> None:
        for probe in optimizer.probes():
            scaler.scale(loss_of(model, DATA)).backward()
            if probe.index == index:
                scaler.unscale_(optimizer)

    with untouched(model), pytest.raises(RuntimeError, match="once, after the loop"):
        loop()
    scaled_step(optimizer, model, scaler_of(2.0**10))

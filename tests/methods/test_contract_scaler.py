"""Loss scaling changes no method, and a skipped step leaves no trace."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from flatmin import SAM
from tests.methods.table import (
    NAMES,
    TRAITS,
    answer,
    built,
    data_of,
    index_of,
    loop,
    states,
    train,
)
from tests.problems import Noisy, assert_same, tensors, untouched

every_method = pytest.mark.parametrize("name", NAMES)


def noisy() -> Noisy:
    torch.manual_seed(0)
    return Noisy().double()


def scaler_of(scale: float) -> GradScaler:
    return GradScaler("cpu", init_scale=scale, growth_interval=10**6)


def scaled_loop(
    optimizer: SAM,
    model: nn.Module,
    scaler: GradScaler,
    *,
    told: bool = True,
    bad: tuple[int, ...] = (),
) -> None:
    step = index_of(optimizer)
    torch.manual_seed(step)
    for probe in optimizer.probes(scaler=scaler if told else None):
        factor = scaler.scale(torch.ones(()))
        bang = math.inf if probe.index in bad else 1.0
        answer(probe, model, data_of(step), factor * bang)


def scaled_step(optimizer: SAM, model: nn.Module, scaler: GradScaler) -> None:
    scaled_loop(optimizer, model, scaler)
    scaler.step(optimizer)
    scaler.update()


@every_method
@pytest.mark.parametrize("scale", [2.0**10, 2.0**-4])
def test_scaled_and_unscaled_runs_agree(name: str, scale: float) -> None:
    model, twin, scaler = noisy(), noisy(), scaler_of(scale)
    optimizer, other = built(name, model), built(name, twin)
    for _ in range(8):
        scaled_step(optimizer, model, scaler)
    train(other, twin, 8)
    both = [(tensors(model), tensors(twin)), (states(optimizer), states(other))]
    for mine, its in both:
        assert mine.keys() == its.keys()
        for key in mine:
            torch.testing.assert_close(
                mine[key], its[key], rtol=1e-12, atol=1e-14, msg=key
            )


@every_method
def test_a_scaler_that_the_loop_is_not_told_of(name: str) -> None:
    model, twin, scaler = noisy(), noisy(), scaler_of(2.0**10)
    optimizer, other = built(name, model), built(name, twin)
    if TRAITS[name].needs_unscaled:
        scaled_loop(optimizer, model, scaler, told=False)
        with untouched(model), pytest.raises(RuntimeError, match="scaler=scaler"):
            scaler.step(optimizer)
        return
    for _ in range(8):
        scaled_loop(optimizer, model, scaler, told=False)
        scaler.step(optimizer)
        scaler.update()
    train(other, twin, 8)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-13)


def content(optimizer: SAM) -> dict[str, Any]:
    return copy.deepcopy(optimizer.state_dict())


def assert_same_content(a: Any, b: Any) -> None:
    if isinstance(a, Tensor):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same_content(a[key], b[key])
    elif isinstance(a, list):
        for x, y in zip(a, b, strict=True):
            assert_same_content(x, y)
    else:
        # NaN stands for what is not remembered yet.
        assert a == b or (math.isnan(a) and math.isnan(b))


def passes_of(optimizer: SAM, model: nn.Module) -> int:
    """How many the next step takes, found out on a copy."""
    twin, other = copy.deepcopy((model, optimizer))
    loop(other, twin)
    return other.statistics.passes


@every_method
@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_overflow_in_the_last_pass_skips_the_step_and_leaves_no_trace(
    name: str, after: int
) -> None:
    model, scaler = noisy(), scaler_of(2.0**10)
    optimizer = built(name, model)
    train(optimizer, model, after)
    before, last = content(optimizer), passes_of(optimizer, model) - 1
    with untouched(model):
        scaled_loop(optimizer, model, scaler, bad=(last,))
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 2.0**9
    assert_same_content(before, content(optimizer))


@every_method
def test_a_run_goes_on_after_an_overflow_as_if_it_had_not_been(name: str) -> None:
    model, twin, scaler = noisy(), noisy(), scaler_of(2.0**10)
    optimizer, other = built(name, model), built(name, twin)
    train(optimizer, model, 3)
    train(other, twin, 3)
    scaled_loop(optimizer, model, scaler, bad=tuple(range(10)))
    scaler.step(optimizer)
    train(optimizer, model, 4)
    train(other, twin, 4)
    assert_same(dict(model.named_parameters()), dict(twin.named_parameters()))
    assert_same(states(optimizer), states(other))


@every_method
def test_accumulating_after_a_skipped_step_starts_anew(name: str) -> None:
    model, twin, scaler = noisy(), noisy(), scaler_of(2.0**10)
    optimizer, other = built(name, model), built(name, twin)
    train(optimizer, model, 3)
    train(other, twin, 3)
    scaled_loop(optimizer, model, scaler, bad=tuple(range(10)))
    scaler.step(optimizer)
    for opt, net in ((optimizer, model), (other, twin)):
        net.zero_grad()
        torch.manual_seed(1)
        for probe in opt.probes(accumulate=TRAITS[name].adds_up):
            answer(probe, net, data_of(3))
        opt.step()
    assert_same(dict(model.named_parameters()), dict(twin.named_parameters()))
    assert_same(states(optimizer), states(other))

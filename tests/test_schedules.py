"""Learning rates that decay late, and the warning where the rate is spent before."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
)

from flatmin import SAM, late_sam, late_subset_sam, schedules
from flatmin.core import TwoPoint, gates

STEPS = 40


def expected(k: int, fall: float) -> float:
    """Four steps up, flat, and down from step 24 on."""
    return (k + 1) / 4 if k < 4 else 1.0 if k < 24 else fall


@pytest.mark.parametrize("name", ["late_linear", "late_cosine"])
def test_a_rate_rises_stays_and_falls_late(name: str) -> None:
    rate = getattr(schedules, name)(STEPS, share=0.4, warmup=4)
    for k in range(STEPS + 2):
        done = min((k - 24) / 16, 1.0)
        line, cosine = 1 - done, (1 + math.cos(math.pi * done)) / 2
        fall = line if name == "late_linear" else cosine
        assert rate(k) == pytest.approx(expected(k, fall), abs=1e-15)


@pytest.mark.parametrize("name", ["late_linear", "late_cosine"])
def test_what_does_not_fit_is_refused(name: str) -> None:
    build = getattr(schedules, name)
    with pytest.raises(ValueError, match=r"warmup=25 reaches .* step 24 of 40"):
        build(STEPS, share=0.4, warmup=25)
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\]"):
        build(STEPS, share=0.0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        build(0)
    with pytest.raises(ValueError, match="warmup must be at least 0"):
        build(STEPS, warmup=-1)


def train(optimizer: SAM, model: nn.Module, schedule: object) -> list[int]:
    """The passes of each step."""
    x, y = torch.randn(8, 4), torch.randint(2, (8,))
    passes: list[int] = []
    for _ in range(STEPS):
        taken = 0
        for probe in optimizer.probes():
            a, b = probe.take(x, y)
            F.cross_entropy(model(a), b).backward()
            taken += 1
        passes.append(taken)
        optimizer.step()
        if isinstance(schedule, LRScheduler):
            schedule.step()
    return passes


def test_a_tail_that_does_not_own_the_decay_is_warned_of() -> None:
    model = nn.Linear(4, 2)
    base = SGD(model.parameters(), lr=0.1)
    optimizer = late_sam(base, model, steps=STEPS, share=0.125)
    schedule = CosineAnnealingLR(optimizer, STEPS)
    with pytest.warns(UserWarning, match=r"step 35.*4% .*late_cosine") as said:
        passes = train(optimizer, model, schedule)
    assert passes == [1] * 35 + [2] * 5
    assert len(said) == 1


def test_a_tail_that_owns_the_decay_is_fine() -> None:
    model = nn.Linear(4, 2)
    base = SGD(model.parameters(), lr=0.1)
    optimizer = late_subset_sam(base, model, steps=STEPS)
    schedule = LambdaLR(optimizer, schedules.late_cosine(STEPS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        passes = train(optimizer, model, schedule)
    assert passes == [1] * 24 + [2] * 16


def test_a_constant_rate_and_sam_throughout_are_fine() -> None:
    for share in (0.5, 1.0):
        model = nn.Linear(4, 2)
        base = SGD(model.parameters(), lr=0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train(late_sam(base, model, steps=STEPS, share=share), model, None)


def by_hand(optimizer: SAM, model: nn.Module, rates: list[float]) -> None:
    """Train with these rates, one for each step."""
    x, y = torch.randn(8, 4), torch.randint(2, (8,))
    for rate in rates:
        for group in optimizer.param_groups:
            held = group["lr"]
            group["lr"] = held.fill_(rate) if isinstance(held, torch.Tensor) else rate
        for _ in optimizer.probes():
            F.cross_entropy(model(x), y).backward()
        optimizer.step()


WARNED = [0.01] * 5 + [1.0] * 25 + [0.05] * 10


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)], ids=["number", "tensor"])
def test_a_rate_that_was_set_by_hand_is_warned_of_too(lr: float) -> None:
    model = nn.Linear(4, 2)
    optimizer = late_sam(SGD(model.parameters(), lr), model, steps=40, share=0.125)
    with pytest.warns(UserWarning, match=r"step 35.*0\.05, 5% of what") as said:
        by_hand(optimizer, model, WARNED)
    assert len(said) == 1


def test_the_peak_of_one_cycle_is_what_a_rate_was() -> None:
    model = nn.Linear(4, 2)
    base = SGD(model.parameters(), lr=0.1)
    optimizer = late_sam(base, model, steps=STEPS, share=0.125)
    cycle = OneCycleLR(optimizer, max_lr=1.0, total_steps=STEPS)
    assert optimizer.param_groups[0]["initial_lr"] == pytest.approx(0.04)
    with pytest.warns(UserWarning, match=r"step 35.*5% of what"):
        train(optimizer, model, cycle)


def test_a_method_that_is_used_again_forgets_the_rates_before() -> None:
    method = TwoPoint(gate=gates.last(0.5, 4))
    for rate in (1.0, 0.01):
        model = nn.Linear(4, 2)
        optimizer = SAM(SGD(model.parameters(), rate), model, method=method)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            by_hand(optimizer, model, [rate] * 4)

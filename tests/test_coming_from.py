"""What docs/coming-from.md says of other SAMs: the same weights, or why they differ."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_optimizer import SAM as PytorchOptimizerSAM
from pytorch_optimizer.optimizer.utils.model import (
    disable_running_stats,
    enable_running_stats,
)
from sam.sam import SAM as SamPytorch  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn
from torch.optim import SGD

import flatmin
from flatmin import SAM
from flatmin.core import Step, TwoPoint
from flatmin.core.scales import Magnitude
from tests.conformance.peers.two_call import TwoCallSAM
from tests.distributed import coming_jobs
from tests.distributed.ranks import Ranks
from tests.optim.test_second_opinion import close, with_optax
from tests.problems import Batch, Noisy, Quadratic, batch, gradient, loss_of, mlp

STEPS = 10
OPTIONS: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}
DATA = batch(torch.float64)

#: davda54/sam from its description, and the package that has its formula. The latter
#: takes the norm in float32, whatever the weights are in.
TWO_CALLS = {
    "davda54": (TwoCallSAM, 1e-11),
    "pytorch_optimizer": (PytorchOptimizerSAM, 1e-6),
}
both = pytest.mark.parametrize(
    ("theirs", "near"), TWO_CALLS.values(), ids=TWO_CALLS.keys()
)


def two_calls(kind: Any, model: nn.Module, helpers: bool = False, **own: Any) -> None:
    """first_step and second_step, with the helpers for BatchNorm or without."""
    optimizer = kind(model.parameters(), SGD, **own, **OPTIONS)
    torch.manual_seed(1)
    for _ in range(STEPS):
        if helpers:
            enable_running_stats(model)
        loss_of(model, DATA).backward()
        optimizer.first_step(zero_grad=True)
        if helpers:
            disable_running_stats(model)
        loss_of(model, DATA).backward()
        optimizer.second_step(zero_grad=True)


def probes(model: nn.Module, build: Callable[..., SAM] = SAM, **own: Any) -> SAM:
    """The lines of the page."""
    optimizer = build(SGD(model.parameters(), **OPTIONS), model, **own)
    torch.manual_seed(1)
    for _ in range(STEPS):
        for _ in optimizer.probes():
            loss_of(model, DATA).backward()
        optimizer.step()
    return optimizer


def gradient_above(model: nn.Module, data: Batch, rho: float, times: int = 1) -> None:
    """Leave the gradient after so many climbs of length rho, with the weights at w."""
    ps = [*model.parameters()]
    w = [p.detach().clone() for p in ps]
    for _ in range(times):
        model.zero_grad()
        loss_of(model, data).backward()
        norm = torch.stack([gradient(p).norm() for p in ps]).norm()
        for p in ps:
            p.data.add_(gradient(p) * (rho / norm))
    model.zero_grad()
    loss_of(model, data).backward()
    for p, old in zip(ps, w, strict=True):
        p.data.copy_(old)


def gap(a: nn.Module, b: nn.Module) -> float:
    """The largest difference of two weights."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


def normed() -> nn.Module:
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


def statistics(model: nn.Module) -> list[Tensor]:
    """Mean, variance and counter of the one BatchNorm."""
    return [*model.buffers()]


@both
def test_two_calls_reach_the_weights_of_a_loop(theirs: Any, near: float) -> None:
    start = mlp()
    a, b = copy.deepcopy(start), copy.deepcopy(start)
    two_calls(theirs, a, rho=0.1)
    probes(b, rho=0.1)
    assert gap(a, b) < near < 0.1 < gap(a, start)


@both
def test_adaptive_is_a_ball_in_units_of_each_weight(theirs: Any, near: float) -> None:
    a, b, c = (copy.deepcopy(model) for model in [mlp()] * 3)
    two_calls(theirs, a, rho=2.0, adaptive=True)
    probes(b, rho=2.0, method=TwoPoint(scale=Magnitude()))
    probes(c, flatmin.asam, rho=2.0)
    assert gap(a, b) < near
    assert gap(a, c) > 0.1


@both
def test_statistics_of_batch_norm_are_updated_twice(theirs: Any, near: float) -> None:
    a, b, c = (copy.deepcopy(model) for model in [normed()] * 3)
    two_calls(theirs, a, rho=0.1)
    probes(b, rho=0.1)
    probes(c, rho=0.1, protect_buffers=False)
    assert gap(a, b) < near
    assert [int(statistics(model)[2]) for model in (a, b, c)] == [20, 10, 20]
    for twice, once, unprotected in zip(*map(statistics, (a, b, c)), strict=True):
        torch.testing.assert_close(twice, unprotected, rtol=near, atol=near)
        assert (twice - once).abs().max() > 1e-3


@both
def test_the_helpers_leave_the_counter_alone(theirs: Any, near: float) -> None:
    a, b = (copy.deepcopy(model) for model in [normed()] * 2)
    two_calls(theirs, a, helpers=True, rho=0.1)
    probes(b, rho=0.1)
    for mine, their in zip(statistics(b)[:2], statistics(a)[:2], strict=True):
        torch.testing.assert_close(mine, their, rtol=near, atol=near)
    assert [int(statistics(model)[2]) for model in (a, b)] == [20, 10]


@both
def test_dropout_draws_another_mask_in_the_second_pass(
    theirs: Any, near: float
) -> None:
    a, b, c = (copy.deepcopy(model) for model in [Noisy().double()] * 3)
    two_calls(theirs, a, rho=0.1)
    probes(b, rho=0.1)
    probes(c, rho=0.1, replay_rng=False)
    assert gap(a, c) < near
    assert gap(a, b) > 0.1


def test_two_calls_average_both_gradients_over_processes(ranks: Ranks) -> None:
    theirs = ranks.run(coming_jobs.two_calls, 5)[0]
    world = ranks.run(coming_jobs.probes, 5, "world")[0]
    replica = ranks.run(coming_jobs.probes, 5, "replica")[0]
    assert world == pytest.approx(theirs, abs=1e-11)
    assert max(abs(a - b) for a, b in zip(replica, theirs, strict=True)) > 1e-4


def with_sam_pytorch(model: nn.Module, rho: float, **options: Any) -> None:
    base = SGD(model.parameters(), **options)
    optimizer = SamPytorch(model.parameters(), base, rho=rho)

    def closure() -> Tensor:
        base.zero_grad()
        loss = loss_of(model, DATA)
        loss.backward()
        return loss

    for _ in range(STEPS):
        optimizer.step(closure)


def test_sam_pytorch_reaches_the_weights_of_a_loop() -> None:
    start = mlp()
    a, b = copy.deepcopy(start), copy.deepcopy(start)
    with_sam_pytorch(a, 0.1, **OPTIONS)
    probes(b, rho=0.1)
    assert gap(a, b) < 1e-12 < 0.1 < gap(a, start)


def test_sam_pytorch_subtracts_what_it_has_added() -> None:
    start = mlp()
    a, b = copy.deepcopy(start), copy.deepcopy(start)
    with_sam_pytorch(a, 0.5, lr=0.0)
    optimizer = SAM(SGD(b.parameters(), lr=0.0), b, rho=0.5)
    for _ in range(STEPS):
        for _ in optimizer.probes():
            loss_of(b, DATA).backward()
        optimizer.step()
    assert 0 < gap(a, start) < 1e-14
    assert gap(b, start) == 0


def test_sam_pytorch_divides_by_a_gradient_of_zero() -> None:
    model = Quadratic()
    nn.init.zeros_(model.w)
    base = SGD(model.parameters(), lr=0.1)
    optimizer = SamPytorch(model.parameters(), base, rho=0.1)

    def closure() -> Tensor:
        base.zero_grad()
        loss = model()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert model.w.isnan().all()


def at_the_end_of_each(interval: int) -> Callable[[Step], bool]:
    return lambda step: (step.index + 1) % interval == 0


def with_composer(model: nn.Module, rho: float, interval: int) -> None:
    """Composer's rule by hand: every ``interval``-th step climbs, by rho as given."""
    base = SGD(model.parameters(), **OPTIONS)
    for index in range(STEPS):
        climbs = (index + 1) % interval == 0
        gradient_above(model, DATA, rho, times=1 if climbs else 0)
        base.step()


def test_composers_interval_takes_rho_as_given_and_climbs_at_its_end() -> None:
    a, b, c = (copy.deepcopy(model) for model in [mlp()] * 3)
    with_composer(a, rho=0.5, interval=5)
    probes(b, rho=0.5, method=TwoPoint(gate=at_the_end_of_each(5)))
    probes(c, flatmin.interval_sam, rho=0.1, k=5)
    assert gap(a, b) < 1e-11
    assert gap(a, c) > 1e-3
    assert gap(b, c) > 1e-3


def with_keras(model: nn.Module, rho: float, parts: int) -> None:
    """Keras' rule by hand: a perturbation for each part, and the sum of gradients."""
    x, y = DATA
    base = SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        total = [torch.zeros_like(p) for p in model.parameters()]
        for part in zip(x.chunk(parts), y.chunk(parts), strict=True):
            gradient_above(model, part, rho)
            for v, p in zip(total, model.parameters(), strict=True):
                v.add_(gradient(p))
        for v, p in zip(total, model.parameters(), strict=True):
            p.grad = v
        base.step()


def in_parts(model: nn.Module, parts: int, share: float, lr: float) -> None:
    """The loop of the page, with a share of each part's loss."""
    x, y = DATA
    optimizer = SAM(SGD(model.parameters(), lr=lr), model, rho=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for part in zip(x.chunk(parts), y.chunk(parts), strict=True):
            for _ in optimizer.probes(accumulate=True):
                (loss_of(model, part) * share).backward()
        optimizer.step()


def test_keras_adds_up_the_gradients_of_parts() -> None:
    a, summed, faster, mean = (copy.deepcopy(model) for model in [mlp()] * 4)
    with_keras(a, rho=0.1, parts=3)
    in_parts(summed, parts=3, share=1.0, lr=0.1)
    in_parts(faster, parts=3, share=1 / 3, lr=0.3)
    in_parts(mean, parts=3, share=1 / 3, lr=0.1)
    assert gap(a, summed) < 1e-11
    assert gap(a, faster) < 1e-11
    assert gap(a, mean) > 0.1


def network_of(rho: float = 0.1, **own: Any) -> tuple[nn.Module, dict[str, Any]]:
    return mlp(), {"rho": rho, "lr": 0.1, **own}


@pytest.mark.everything
def test_optax_with_visible_updates_is_a_loop_on_the_same_batch(
    tmp_path: Path,
) -> None:
    model, numbers = network_of(seen=1)
    given = {"x": DATA[0], "y": DATA[1]}
    theirs = with_optax("network", tmp_path, model, given, **numbers)
    optimizer = SAM(SGD(model.parameters(), lr=0.1, momentum=0.9), model, rho=0.1)
    for _ in range(8):
        for _ in optimizer.probes():
            loss_of(model, DATA).backward()
        optimizer.step()
    close(model, theirs)


@pytest.mark.everything
def test_optax_climbs_out_of_the_ball_in_a_longer_period(tmp_path: Path) -> None:
    model, numbers = network_of(period=3)
    ours = copy.deepcopy(model)
    given = {"x": DATA[0], "y": DATA[1]}
    theirs = with_optax("network", tmp_path, model, given, **numbers)
    base = SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(8):
        gradient_above(model, DATA, 0.1, times=2)
        base.step()
    close(model, theirs)
    base = SGD(ours.parameters(), lr=0.1, momentum=0.9)
    optimizer = flatmin.multi_step_sam(base, ours, rho=0.1, k=2)
    for _ in range(8):
        for _ in optimizer.probes():
            loss_of(ours, DATA).backward()
        optimizer.step()
    assert gap(ours, model) > 1e-3


@pytest.mark.everything
def test_optax_divides_by_a_gradient_of_zero(tmp_path: Path) -> None:
    model = Quadratic()
    nn.init.zeros_(model.w)
    given = {"a": model.a}
    (theirs,) = with_optax("quadratic", tmp_path, model, given, rho=0.1, lr=0.1)
    assert theirs.isnan().all()


def test_a_gradient_of_zero_is_a_step_of_the_base_here() -> None:
    model = Quadratic()
    nn.init.zeros_(model.w)
    optimizer = SAM(SGD(model.parameters(), lr=0.1), model, rho=0.1)
    for _ in optimizer.probes():
        model().backward()
    optimizer.step()
    assert torch.equal(model.w.detach(), torch.zeros(5).double())
    assert optimizer.unperturbed_steps == 1

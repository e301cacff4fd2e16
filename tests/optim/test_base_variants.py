"""The ways in which torch's optimizers can be built and watched."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, StepLR
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from flatmin import SAM
from tests.problems import (
    assert_same,
    assert_same_state,
    batch,
    gradient,
    loss_of,
    mlp,
    passes,
    sam_steps,
    tensors,
    two_layers,
    untouched,
)
from tests.reference.loop import sam_loop

_optim = torch.optim
DATA = batch(torch.float64)
RHO = 0.5
KINDS: dict[str, tuple[Callable[..., Optimizer], dict[str, Any]]] = {
    "sgd": (_optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}),
    "adam": (_optim.Adam, {"lr": 0.01, "amsgrad": True}),
    "adamw": (_optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "adagrad": (_optim.Adagrad, {"lr": 0.1}),
}
FUSED = ("sgd", "adam", "adamw", "adagrad")
every_kind = pytest.mark.parametrize("kind", KINDS)


def build(kind: str, model: nn.Module, **more: Any) -> Optimizer:
    make, options = KINDS[kind]
    return make(model.parameters(), **{**options, **more})


def twins() -> tuple[nn.Module, nn.Module]:
    model = mlp()
    return model, copy.deepcopy(model)


def close(model: nn.Module, twin: nn.Module, rtol: float = 1e-12) -> None:
    for p, t in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, t, rtol=rtol, atol=rtol / 10)


def rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


# Implementations.


@pytest.mark.parametrize(
    "how",
    [{"foreach": True}, {"foreach": False}, {"fused": True}, {"differentiable": False}],
    ids=["foreach", "loop", "fused", "not-differentiable"],
)
@every_kind
def test_every_implementation_equals_the_reference_with_a_plain_loop(
    kind: str, how: dict[str, bool]
) -> None:
    model, twin = twins()
    plain = build(kind, twin, foreach=False)
    sam_loop(twin, plain, lambda: loss_of(twin, DATA), steps=10, rho=RHO)
    base = build(kind, model, **how)
    assert all(base.param_groups[0][name] == value for name, value in how.items())
    sam_steps(SAM(base, model, rho=RHO), model, DATA, 10)
    close(model, twin)


REFUSED = {
    "capturable": ("adamw", {"capturable": True}, AssertionError, "capturable=True"),
    "differentiable": ("sgd", {"differentiable": True}, RuntimeError, "leaf Variable"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_the_base_refuses_is_refused_in_its_words(case: Any) -> None:
    kind, options, error, words = case
    model = mlp()
    base = build(kind, model, **options)
    optimizer = SAM(base, model)
    with untouched(model):
        passes(optimizer, model, DATA)
        with pytest.raises(error, match=words):
            optimizer.step()
        with pytest.raises(error, match=words):
            base.step()
    assert optimizer.param_groups[0]["sam_step"] == 0


# Loss scaling; fused optimizers would unscale by themselves.


def fused(kind: str, model: nn.Module) -> SAM:
    base = build(kind, model, fused=True)
    assert getattr(base, "_step_supports_amp_scaling", False)
    return SAM(base, model, rho=RHO)


def scaled_step(
    optimizer: SAM, model: nn.Module, scaler: GradScaler, unscale: bool, bad: int = -1
) -> None:
    for probe in optimizer.probes():
        scaler.scale(loss_of(model, batch())).backward()
        if probe.index == bad:
            gradient(next(model.parameters())).fill_(math.inf)
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


either_way = pytest.mark.parametrize("unscale", [False, True])


@either_way
@pytest.mark.parametrize("kind", FUSED)
def test_a_scaled_run_of_a_fused_base_is_the_unscaled_one(
    kind: str, unscale: bool
) -> None:
    model, twin = mlp(torch.float32), mlp(torch.float32)
    twin.load_state_dict(model.state_dict())
    sam_steps(fused(kind, twin), twin, batch(), 5)
    optimizer = fused(kind, model)
    scaler = GradScaler("cpu", init_scale=2.0**16, growth_interval=10**6)
    for _ in range(5):
        scaled_step(optimizer, model, scaler, unscale)
    close(model, twin, 1e-4)
    assert optimizer.param_groups[0]["sam_step"] == 5


@either_way
@pytest.mark.parametrize("kind", FUSED)
def test_an_overflow_skips_the_step_of_a_fused_base(kind: str, unscale: bool) -> None:
    model = mlp(torch.float32)
    optimizer = fused(kind, model)
    _, before = copy.deepcopy((model, optimizer))
    scaler = GradScaler("cpu", init_scale=2.0**16, growth_interval=10**6)
    with untouched(model):
        scaled_step(optimizer, model, scaler, unscale, bad=1)
    assert scaler.get_scale() == 2.0**15
    assert_same_state(optimizer, before)
    scaled_step(optimizer, model, scaler, unscale)
    assert optimizer.param_groups[0]["sam_step"] == 1


# Learning rates in tensors.


def halve(optimizer: Optimizer) -> LRScheduler:
    return StepLR(optimizer, 1, 0.5)


def cycle(optimizer: Optimizer) -> LRScheduler:
    return OneCycleLR(optimizer, max_lr=0.25, total_steps=10, cycle_momentum=False)


def shrink(optimizer: Optimizer) -> LRScheduler:
    return LambdaLR(optimizer, lambda k: 0.5**k)


@pytest.mark.parametrize("schedule", [halve, cycle, shrink])
@pytest.mark.parametrize("how", [{"foreach": False}, {"fused": True}], ids=str)
@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_a_rate_in_a_tensor_is_a_rate(
    kind: str, how: dict[str, bool], schedule: Callable[[Optimizer], LRScheduler]
) -> None:
    model, twin = twins()
    rate = torch.tensor(0.125, dtype=torch.float64)
    optimizer = SAM(build(kind, model, lr=rate, **how), model, rho=RHO)
    plain = build(kind, twin, lr=0.125, foreach=False)
    one, other = schedule(optimizer), schedule(plain)
    for _ in range(5):
        sam_steps(optimizer, model, DATA, 1)
        sam_loop(twin, plain, lambda: loss_of(twin, DATA), steps=1, rho=RHO)
        one.step()
        other.step()
        assert rates(optimizer) == pytest.approx(rates(plain), rel=1e-12)
    assert isinstance(optimizer.param_groups[0]["lr"], Tensor)
    assert rates(optimizer) != [0.125]
    close(model, twin)


def test_a_rate_in_a_tensor_comes_back_with_the_state() -> None:
    model, twin = twins()
    options = {"lr": torch.tensor(0.125), "foreach": False}
    optimizer = SAM(build("adamw", model, **options), model)
    sam_steps(optimizer, model, DATA, 3)
    optimizer.param_groups[0]["lr"].fill_(0.25)
    other = SAM(build("adamw", twin, lr=torch.tensor(1.0), foreach=False), twin)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    twin.load_state_dict(model.state_dict())
    assert rates(other) == [0.25]
    sam_steps(optimizer, model, DATA, 3)
    sam_steps(other, twin, DATA, 3)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


# Hooks.


@contextmanager
def global_hooks(calls: list[tuple[str, type]]) -> Iterator[None]:
    handles = [
        register_optimizer_step_pre_hook(
            lambda optimizer, *_: calls.append(("before", type(optimizer)))
        ),
        register_optimizer_step_post_hook(
            lambda optimizer, *_: calls.append(("after", type(optimizer)))
        ),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("how", ["probes", "closure"])
def test_global_step_hooks_see_a_step_once(how: str) -> None:
    model, calls = mlp(), []
    optimizer = SAM(_optim.SGD(model.parameters(), lr=0.1), model)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, DATA)
        loss.backward()
        return loss

    with global_hooks(calls):
        if how == "probes":
            sam_steps(optimizer, model, DATA, 1)
        else:
            optimizer.step(closure)
    assert calls == [("before", _optim.SGD), ("after", _optim.SGD)]


def test_hooks_on_parameters_are_called_once_per_pass() -> None:
    model, calls = mlp(), []
    w = next(model.parameters())
    w.register_hook(lambda _: calls.append("gradient"))
    w.register_post_accumulate_grad_hook(lambda _: calls.append("accumulated"))
    optimizer = SAM(_optim.SGD(model.parameters(), lr=0.1), model)
    sam_steps(optimizer, model, DATA, 3)
    assert calls == ["gradient", "accumulated"] * 6


def doubled(p: Tensor) -> None:
    p.register_hook(lambda g: 2 * g)


def clipped(p: Tensor) -> None:
    def clip(t: Tensor) -> None:
        gradient(t).clamp_(-0.01, 0.01)

    p.register_post_accumulate_grad_hook(clip)


@pytest.mark.parametrize("attach", [doubled, clipped])
def test_what_hooks_make_of_a_gradient_counts_in_both_passes(
    attach: Callable[[Tensor], None],
) -> None:
    model, twin = twins()
    for each in (model, twin):
        attach(next(each.parameters()))
    optimizer = SAM(build("sgd", model), model, rho=RHO)
    sam_steps(optimizer, model, DATA, 5)
    plain = build("sgd", twin)
    sam_loop(twin, plain, lambda: loss_of(twin, DATA), steps=5, rho=RHO)
    close(model, twin)


def test_a_hook_that_takes_gradients_away_is_found() -> None:
    model = mlp()
    optimizer = SAM(build("sgd", model), model)
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda t: setattr(t, "grad", None))
    with untouched(model), pytest.raises(RuntimeError, match="no parameter has a grad"):
        passes(optimizer, model, DATA)


# Gradients after the loop.


def test_clipping_by_value_clips_what_is_descended() -> None:
    model, twin = twins()
    optimizer = SAM(build("sgd", model), model, rho=RHO)
    for _ in range(5):
        passes(optimizer, model, DATA)
        nn.utils.clip_grad_value_(model.parameters(), 0.01)
        optimizer.step()
    sam_loop(
        twin,
        build("sgd", twin),
        lambda: loss_of(twin, DATA),
        steps=5,
        rho=RHO,
        before_step=lambda: nn.utils.clip_grad_value_(twin.parameters(), 0.01),
    )
    close(model, twin)


def total_norm(model: nn.Module) -> float:
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return nn.utils.get_total_norm(grads).item()


def test_the_total_norm_is_the_ascents_in_the_loop_and_the_descents_after() -> None:
    model, twin = twins()
    optimizer, found = SAM(build("sgd", model), model, rho=RHO), []
    for _ in optimizer.probes():
        loss_of(model, DATA).backward()
        found.append(total_norm(model))
    after: list[float] = []
    sam_loop(
        twin,
        build("sgd", twin),
        lambda: loss_of(twin, DATA),
        steps=1,
        rho=RHO,
        before_step=lambda: after.append(total_norm(twin)),
    )
    assert optimizer.statistics.grad_norm is not None
    assert optimizer.statistics.grad_norm.item() == pytest.approx(found[0], rel=1e-12)
    assert total_norm(model) == found[1] == pytest.approx(after[0], rel=1e-12)
    assert found[0] != pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize("where", ["before the loop", "in the body", "after the step"])
@pytest.mark.parametrize("cosine", [False, True])
def test_zeroing_gradients_in_place_changes_no_bit(where: str, cosine: bool) -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    optimizer, other = (
        SAM(build("adamw", each), each, rho=RHO, track=cosine) for each in (model, twin)
    )
    for _ in range(4):
        zero(optimizer, where, "before the loop")
        for _ in optimizer.probes():
            zero(optimizer, where, "in the body")
            loss_of(model, DATA).backward()
        optimizer.step()
        zero(optimizer, where, "after the step")
    sam_steps(other, twin, DATA, 4)
    assert_same(tensors(model), tensors(twin))
    assert optimizer.statistics.cosine == other.statistics.cosine
    assert (optimizer.statistics.cosine is not None) == cosine


def zero(optimizer: SAM, where: str, here: str) -> None:
    if where == here:
        optimizer.zero_grad(set_to_none=False)

"""SAM is an optimizer like torch's own, and one object with its base."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, StepLR

from flatmin import SAM
from flatmin.core import Step, TwoPoint
from tests.problems import (
    Noisy,
    assert_same,
    batch,
    passes,
    plain_steps,
    sam_steps,
    tensors,
    two_layers,
)
from tests.registry import MOMENTUM, ROWS, Row, name_of

DATA = batch(torch.float64)


def sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_groups_and_state_are_the_base_optimizers(row: Row) -> None:
    model = Noisy()
    optimizer = row.build(model)
    assert isinstance(optimizer, Optimizer)
    for _ in range(2):
        assert optimizer.param_groups is optimizer.base.param_groups
        assert optimizer.state is optimizer.base.state
        sam_steps(optimizer, model, batch(), 1)
        optimizer.load_state_dict(optimizer.state_dict())


def test_the_radius_does_not_take_a_key_of_the_base() -> None:
    model = Noisy()
    base = torch.optim.Adadelta(model.parameters(), rho=0.8)
    optimizer = SAM(base, model, rho=0.05)
    assert optimizer.param_groups[0]["rho"] == 0.8
    assert optimizer.param_groups[0]["sam_rho"] == 0.05
    assert optimizer.defaults["rho"] == 0.8
    assert optimizer.defaults["sam_rho"] == 0.05
    assert "sam_rho" not in base.defaults


def drop(optimizer: Optimizer) -> LRScheduler:
    return StepLR(optimizer, 1, 0.5)


@pytest.mark.parametrize("door", ["sam", "base", "base-first"])
def test_a_scheduler_acts_through_either_object_without_warning(door: str) -> None:
    model = two_layers()
    base = sgd(model)
    scheduler = drop(base) if door == "base-first" else None
    optimizer = SAM(base, model)
    scheduler = scheduler or drop(optimizer if door == "sam" else base)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for k in range(3):
            assert optimizer.param_groups[0]["lr"] == 0.1 * 0.5**k
            sam_steps(optimizer, model, DATA, 1)
            scheduler.step()


@pytest.mark.parametrize("door", ["sam", "base"])
@pytest.mark.parametrize("loaded", ["sam", "base"])
def test_a_scheduler_still_acts_after_loading(door: str, loaded: str) -> None:
    model = two_layers()
    optimizer = SAM(sgd(model), model)
    scheduler = drop(optimizer if door == "sam" else optimizer.base)
    sam_steps(optimizer, model, DATA, 1)
    target = optimizer if loaded == "sam" else optimizer.base
    target.load_state_dict(copy.deepcopy(target.state_dict()))
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.05
    before = [p.detach().clone() for p in model.parameters()]
    passes(optimizer, model, DATA)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    buffers = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    expected = [
        w - 0.05 * (0.9 * m + g) for w, m, g in zip(before, buffers, grads, strict=True)
    ]
    optimizer.step()
    for p, e in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), e, rtol=1e-13, atol=1e-14)


def test_a_scheduler_that_cycles_momentum_finds_the_defaults() -> None:
    model = two_layers()
    optimizer = SAM(sgd(model), model)
    scheduler = OneCycleLR(optimizer, max_lr=0.4, total_steps=10)
    start = optimizer.base.param_groups[0]["lr"], optimizer.defaults["momentum"]
    for _ in range(2):
        sam_steps(optimizer, model, DATA, 1)
        scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] > start[0]
    assert optimizer.base.param_groups[0]["momentum"] < start[1]


def test_the_radius_can_follow_a_schedule() -> None:
    model = two_layers()
    optimizer = SAM(sgd(model), model, rho=0.5)
    w = [p.detach().clone() for p in model.parameters()]
    for rho in (0.5, 0.25, 0.0):
        optimizer.param_groups[0]["sam_rho"] = rho
        lengths = []
        optimizer.zero_grad()
        for _ in optimizer.probes():
            pairs = zip(model.parameters(), w, strict=True)
            apart = [(p.detach() - t).flatten() for p, t in pairs]
            lengths.append(torch.cat(apart).norm().item())
            model(DATA[0]).pow(2).mean().backward()
        assert lengths == pytest.approx([0.0, rho] if rho else [0.0])


@pytest.mark.parametrize("bad", [-0.1, float("nan"), "0.05"])
def test_an_impossible_radius_is_found_before_the_first_pass(bad: Any) -> None:
    model = two_layers()
    optimizer = SAM(sgd(model), model)
    optimizer.param_groups[0]["sam_rho"] = bad
    with pytest.raises((TypeError, ValueError), match="sam_rho must be"):
        passes(optimizer, model, DATA)
    optimizer.param_groups[0]["sam_rho"] = 0.1
    passes(optimizer, model, DATA)


@pytest.mark.parametrize("options", [{}, {"sam_rho": 0.5}])
@pytest.mark.parametrize("door", ["sam", "base"])
def test_a_group_that_is_added_later_is_trained(
    options: dict[str, float], door: str
) -> None:
    model = two_layers()
    optimizer = SAM(torch.optim.SGD(model[0].parameters(), lr=0.1), model, rho=0.05)
    sam_steps(optimizer, model, DATA, 2)
    target = optimizer if door == "sam" else optimizer.base
    target.add_param_group({"params": [*model[1].parameters()], **options})
    before = [p.detach().clone() for p in model.parameters()]
    for probe in optimizer.probes():
        pairs = zip(model.parameters(), before, strict=True)
        same = [torch.equal(p, t) for p, t in pairs]
        assert same == [not probe.perturbed] * 4
        model(DATA[0]).pow(2).mean().backward()
    optimizer.step()
    radii = [group["sam_rho"] for group in optimizer.param_groups]
    assert radii == [0.05, options.get("sam_rho", 0.05)]
    assert [group["sam_step"] for group in optimizer.param_groups] == [3, 3]
    pairs = zip(model.parameters(), before, strict=True)
    assert not any(torch.equal(p, t) for p, t in pairs)


def test_a_group_with_an_impossible_radius_is_not_added() -> None:
    model = two_layers()
    optimizer = SAM(torch.optim.SGD(model[0].parameters(), lr=0.1), model)
    group = {"params": [*model[1].parameters()], "sam_rho": -1.0}
    with pytest.raises(ValueError, match="sam_rho must be finite"):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1
    sam_steps(optimizer, model, DATA, 1)


@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad_is_the_base_optimizers(to_none: bool) -> None:
    model = two_layers()
    optimizer = SAM(sgd(model), model)
    passes(optimizer, model, DATA)
    optimizer.zero_grad(to_none)
    for p in model.parameters():
        assert (p.grad is None) == to_none
        assert p.grad is None or not p.grad.any()


def test_step_hooks_of_either_object_run_once_per_step() -> None:
    model, calls = two_layers(), []
    optimizer = SAM(sgd(model), model)
    optimizer.register_step_pre_hook(lambda *_: calls.append("sam before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("sam after"))
    optimizer.base.register_step_pre_hook(lambda *_: calls.append("base before"))
    optimizer.base.register_step_post_hook(lambda *_: calls.append("base after"))
    sam_steps(optimizer, model, DATA, 1)
    assert calls == ["sam before", "base before", "base after", "sam after"]


@pytest.mark.parametrize("door", ["sam", "base"])
def test_state_dict_hooks_run_whichever_object_they_are_registered_on(
    door: str,
) -> None:
    model = two_layers()
    optimizer = SAM(sgd(model), model)
    target = optimizer if door == "sam" else optimizer.base
    calls: list[str] = []

    def mark(_: Optimizer, content: dict[str, Any]) -> dict[str, Any]:
        return {**content, "mark": 1}

    def unmark(_: Optimizer, content: dict[str, Any]) -> dict[str, Any]:
        assert content["mark"] == 1
        return {name: value for name, value in content.items() if name != "mark"}

    target.register_state_dict_pre_hook(lambda _: calls.append("save"))
    target.register_state_dict_post_hook(mark)
    target.register_load_state_dict_pre_hook(unmark)
    target.register_load_state_dict_post_hook(lambda _: calls.append("loaded"))
    for each in (optimizer, optimizer.base):
        each.load_state_dict(each.state_dict())
    assert calls == ["save", "loaded"] * 2


def test_clipping_after_the_loop_clips_what_is_descended() -> None:
    model = two_layers()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=1.0), model)
    passes(optimizer, model, DATA)
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    total = nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    for p, w, g in zip(model.parameters(), before, grads, strict=True):
        torch.testing.assert_close(
            p.detach(), w - 1e-3 * g / total, rtol=1e-6, atol=1e-12
        )


def test_weight_decay_acts_at_w_and_does_not_climb() -> None:
    model = nn.Linear(2, 1).double()
    base = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.5)
    optimizer = SAM(base, model)
    before = [p.detach().clone() for p in model.parameters()]
    for _ in optimizer.probes():
        (model(torch.ones(1, 2).double()) * 0).sum().backward()
    optimizer.step()
    assert optimizer.unperturbed_steps == 1
    for p, w in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), w * 0.95, rtol=1e-14, atol=0)


def test_a_schedule_of_the_gate_and_the_plain_loop_agree() -> None:
    def second_half(step: Step) -> bool:
        return step.index >= 3

    model = Noisy()
    twin = copy.deepcopy(model)
    gated = {"method": TwoPoint(gate=second_half)}
    sam_steps(Row("", MOMENTUM, gated).build(model), model, batch(), 6)

    torch.manual_seed(0)
    Noisy()  # draws what building the model drew
    plain = MOMENTUM.build(twin.parameters())
    plain_steps(plain, twin, batch(), 3)
    sam_steps(SAM(plain, twin), twin, batch(), 3)
    assert_same(tensors(model), tensors(twin))


def test_a_lambda_scheduler_survives_an_added_group() -> None:
    model = two_layers()
    optimizer = SAM(torch.optim.SGD(model[0].parameters(), lr=0.1), model)
    scheduler = LambdaLR(optimizer, lambda k: 0.5**k)
    sam_steps(optimizer, model, DATA, 1)
    scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == 0.05

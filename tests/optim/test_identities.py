"""SAM and its base are one optimizer, whichever object somebody holds."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from flatmin import SAM, ae_sam, friendly_sam, interval_sam, late_sam, looksam, usam
from tests.problems import (
    assert_same,
    assert_same_state,
    batch,
    loss_of,
    passes,
    sam_steps,
    tensors,
    two_layers,
    untouched,
)

DATA = batch(torch.float64)
SHARE = "share their gradients"


def sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


METHODS: dict[str, Any] = {
    "sam": SAM,
    "interval": lambda base, model: interval_sam(base, model, k=3),
    "late": lambda base, model: late_sam(base, model, steps=6, share=0.5),
    "friendly": friendly_sam,
    "look": lambda base, model: looksam(base, model, k=3),
}
every_method = pytest.mark.parametrize("name", METHODS)


@every_method
def test_a_step_of_the_base_is_a_step_of_sam(name: str) -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    optimizer = METHODS[name](sgd(model), model)
    other = METHODS[name](sgd(twin), twin)
    for k in range(7):
        passes(optimizer, model, DATA)
        (optimizer.base if k % 2 else optimizer).step()
    sam_steps(other, twin, DATA, 7)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)
    assert optimizer.param_groups[0]["sam_step"] == 7


def test_a_plain_step_of_the_base_counts_and_remembers_nothing() -> None:
    model = two_layers()
    optimizer = friendly_sam(sgd(model), model)
    passes(optimizer, model, DATA)
    model.zero_grad()
    loss_of(model, DATA).backward()
    optimizer.base.step()
    assert optimizer.param_groups[0]["sam_step"] == 1
    assert not any("sam_friend" in entry for entry in optimizer.state.values())
    sam_steps(optimizer, model, DATA, 1)


def test_a_plain_step_of_the_base_notes_no_number() -> None:
    model = two_layers()
    optimizer = ae_sam(sgd(model), model, steps=20)
    passes(optimizer, model, DATA)
    model.zero_grad()
    loss_of(model, DATA).backward()
    optimizer.base.step()
    assert "sam_steep_mean" not in optimizer.param_groups[0]
    sam_steps(optimizer, model, DATA, 1)
    assert "sam_steep_mean" in optimizer.param_groups[0]


def test_a_plain_step_of_the_base_leaves_what_an_earlier_step_remembered() -> None:
    model = two_layers()
    optimizer = friendly_sam(sgd(model), model)
    sam_steps(optimizer, model, DATA, 1)
    kept = {p: entry["sam_friend"].clone() for p, entry in optimizer.state.items()}
    passes(optimizer, model, DATA)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.base.step()
    assert kept.keys() == optimizer.state.keys()
    for p, entry in optimizer.state.items():
        assert torch.equal(entry["sam_friend"], kept[p])


def test_a_plain_step_of_the_base_counts_for_a_group_that_it_was_given() -> None:
    model, extra = two_layers(), nn.Parameter(torch.ones(3))
    optimizer = SAM(sgd(model), model)
    sam_steps(optimizer, model, DATA, 2)
    optimizer.base.add_param_group({"params": [extra], "lr": 0.5})
    extra.grad = torch.ones(3)
    optimizer.base.step()
    assert torch.equal(extra, torch.full((3,), 0.5))
    assert [group["sam_step"] for group in optimizer.param_groups] == [3, 3]


def test_a_step_of_the_base_inside_the_loop_is_refused() -> None:
    model = two_layers()
    optimizer = SAM(sgd(model), model)
    for _ in optimizer.probes():
        loss_of(model, DATA).backward()
        with untouched(model), pytest.raises(RuntimeError, match="inside a probes"):
            optimizer.base.step()
    optimizer.base.step()
    assert optimizer.param_groups[0]["sam_step"] == 1


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("unscaled", ["sam", "base", None])
@pytest.mark.parametrize("stepped", ["sam", "base"])
def test_gradients_are_unscaled_once_or_the_step_is_refused(
    stepped: str, unscaled: str | None, enabled: bool
) -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    optimizer, other = SAM(sgd(model), model), SAM(sgd(twin), twin)
    objects = {"sam": optimizer, "base": optimizer.base}
    scaler = GradScaler("cpu", init_scale=16.0, enabled=enabled)
    for _ in optimizer.probes():
        scaler.scale(loss_of(model, DATA)).backward()
    if unscaled:
        scaler.unscale_(objects[unscaled])
    if enabled and unscaled and unscaled != stepped:
        with untouched(model), pytest.raises(RuntimeError, match=SHARE):
            scaler.step(objects[stepped])
        return
    scaler.step(objects[stepped])
    scaler.update()
    sam_steps(other, twin, DATA, 1)
    assert_same(tensors(model), tensors(twin))
    assert optimizer.param_groups[0]["sam_step"] == 1


def test_a_scaler_that_steps_the_base_is_told_what_the_method_needs() -> None:
    model = two_layers()
    optimizer, scaler = usam(sgd(model), model, rho=0.1), GradScaler("cpu")
    for _ in optimizer.probes():
        scaler.scale(loss_of(model, DATA)).backward()
    with untouched(model), pytest.raises(RuntimeError, match="loss scale"):
        scaler.step(optimizer.base)


# State and groups.


@pytest.mark.parametrize("how", ["setstate", "state", "base"])
def test_a_new_state_is_the_base_optimizers(how: str) -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    optimizer = SAM(sgd(model), model)
    sam_steps(optimizer, model, DATA, 2)
    if how == "setstate":
        optimizer.__setstate__({"state": defaultdict(dict)})
    else:
        target = optimizer if how == "state" else optimizer.base
        target.state = defaultdict(dict)
    assert len(optimizer.state) == len(optimizer.base.state) == 0
    twin.load_state_dict(model.state_dict())
    sam_steps(optimizer, model, DATA, 2)
    sam_steps(SAM(sgd(twin), twin), twin, DATA, 2)
    assert_same(tensors(model), tensors(twin))


@pytest.mark.parametrize("how", ["setstate", "assigned"])
def test_new_groups_are_the_base_optimizers_and_complete(how: str) -> None:
    model = two_layers()
    optimizer = SAM(sgd(model), model, rho=0.3)
    other = sgd(model)
    if how == "setstate":
        optimizer.__setstate__({"param_groups": other.param_groups})
    else:
        optimizer.param_groups = other.param_groups
    assert optimizer.base.param_groups is other.param_groups
    assert optimizer.param_groups[0]["sam_rho"] == 0.3
    sam_steps(optimizer, model, DATA, 1)


# Copies.


@pytest.fixture
def in_the_second_pass() -> Iterator[SAM]:
    model = two_layers()
    optimizer = SAM(sgd(model), model, rho=0.3)
    loop = optimizer.probes()
    next(loop)
    loss_of(model, DATA).backward()
    next(loop)
    yield optimizer
    loss_of(model, DATA).backward()
    assert next(loop, None) is None
    optimizer.step()


AT_EPS = r"weights are at w \+ eps"


def test_a_copy_at_w_eps_is_refused(in_the_second_pass: SAM) -> None:
    optimizer = in_the_second_pass
    for copied in (
        optimizer,
        (optimizer.model, optimizer),
        (optimizer, optimizer.model),
    ):
        with pytest.raises(RuntimeError, match=AT_EPS):
            copy.deepcopy(copied)
        with pytest.raises(RuntimeError, match=AT_EPS):
            pickle.dumps(copied)


def test_a_state_dict_at_w_eps_is_refused(in_the_second_pass: SAM) -> None:
    for each in (in_the_second_pass, in_the_second_pass.base):
        with pytest.raises(RuntimeError, match=AT_EPS):
            each.state_dict()


class OwnState(torch.optim.SGD):
    """A base that writes its state dict itself, and calls none of torch's hooks."""

    def state_dict(self) -> dict[str, Any]:
        return {"state": {}, "param_groups": [{"params": [0, 1, 2, 3]}]}


def test_a_state_dict_at_w_eps_is_refused_of_a_base_with_its_own() -> None:
    model = two_layers()
    optimizer = SAM(OwnState(model.parameters(), lr=0.1), model)
    for probe in optimizer.probes():
        if probe.perturbed:
            with pytest.raises(RuntimeError, match=AT_EPS):
                optimizer.state_dict()
        else:
            optimizer.state_dict()
        loss_of(model, DATA).backward()


def test_a_copy_in_the_first_pass_is_one_at_w() -> None:
    model = two_layers()
    optimizer = SAM(sgd(model), model, rho=0.3)
    sam_steps(optimizer, model, DATA, 1)
    twin, other = model, optimizer
    for _ in optimizer.probes():
        twin, other = copy.deepcopy((model, optimizer))
        break
    for each, its in ((model, optimizer), (twin, other)):
        sam_steps(its, each, DATA, 3)
    assert_same(tensors(model), tensors(twin))


def test_steps_of_a_copy_are_its_own() -> None:
    model = two_layers()
    optimizer = SAM(sgd(model), model)
    sam_steps(optimizer, model, DATA, 1)
    twin, other = copy.deepcopy((model, optimizer))
    sam_steps(other, twin, DATA, 2)
    assert optimizer.param_groups[0]["sam_step"] == 1
    assert other.param_groups[0]["sam_step"] == 3


class Whole(torch.optim.SGD):
    """A base whose copies keep all that it has, hooks too."""

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copied_hook_does_not_call_the_original(how: str) -> None:
    model = two_layers()
    optimizer = SAM(Whole(model.parameters(), lr=0.1), model)
    both = (model, optimizer)
    twin, other = (
        copy.deepcopy(both) if how == "deepcopy" else pickle.loads(pickle.dumps(both))
    )
    sam_steps(other, twin, DATA, 2)
    assert optimizer.param_groups[0]["sam_step"] == 0
    assert other.param_groups[0]["sam_step"] == 2


def test_the_base_does_not_keep_sam_alive() -> None:
    model = two_layers()
    base = sgd(model)
    optimizer = SAM(base, model)
    gone = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert gone() is None
    loss_of(model, DATA).backward()
    base.step()
    base.load_state_dict(base.state_dict())


# Hooks of the user.


def test_a_loading_hook_finds_complete_groups() -> None:
    model = two_layers()
    optimizer, seen = SAM(sgd(model), model, rho=0.3), []
    optimizer.register_load_state_dict_post_hook(
        lambda opt: seen.append(opt.param_groups[0]["sam_rho"])
    )
    optimizer.load_state_dict(sgd(model).state_dict())
    assert seen == [0.3]


@pytest.mark.parametrize("door", ["sam", "base"])
def test_a_saving_hook_may_change_the_shape(door: str) -> None:
    model = two_layers()
    optimizer = friendly_sam(sgd(model), model)
    optimizer.register_state_dict_post_hook(lambda _, content: {"wrapped": content})
    optimizer.register_load_state_dict_pre_hook(lambda _, content: content["wrapped"])
    passes(optimizer, model, DATA)
    model.zero_grad()
    loss_of(model, DATA).backward()
    optimizer.base.step()
    target = optimizer if door == "sam" else optimizer.base
    content = target.state_dict()
    assert content["wrapped"]["state"][0]["sam_friend"].isnan().all()
    target.load_state_dict(content)
    assert not any("sam_friend" in entry for entry in optimizer.state.values())


def test_a_state_with_an_entry_that_is_no_dict_loads() -> None:
    model = two_layers()
    optimizer = friendly_sam(sgd(model), model)
    sam_steps(optimizer, model, DATA, 2)
    content = copy.deepcopy(optimizer.state_dict())
    content["state"]["global"] = 3
    optimizer.load_state_dict(content)
    assert optimizer.state["global"] == 3  # pyright: ignore[reportArgumentType]
    sam_steps(optimizer, model, DATA, 1)


def test_a_hook_of_sam_may_give_the_step_a_closure() -> None:
    model = two_layers()
    optimizer, calls = SAM(sgd(model), model), []

    def closure() -> None:
        model.zero_grad()
        loss_of(model, DATA).backward()
        calls.append(1)

    hook = optimizer.register_step_pre_hook(
        lambda opt, args, kwargs: ((opt, closure), {})
    )
    optimizer.step()
    hook.remove()
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: (args, {}))
    with pytest.raises(RuntimeError, match="finished probes"):
        optimizer.step(closure)
    assert len(calls) == 2

"""No gradient is lost: a loop refuses to clear what no step has used."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from flatmin import SAM
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
RHO = 0.2
NEVER_USED = "not used by a step"
FOUND = "have a gradient that no step has used"


def sam(model: nn.Module, lr: float = 0.1) -> SAM:
    return SAM(torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9), model, rho=RHO)


def overflowing(optimizer: SAM, model: nn.Module, scaler: GradScaler) -> None:
    """A loop whose descent gradient overflows."""
    for probe in optimizer.probes():
        scaler.scale(loss_of(model, DATA)).backward()
        if probe.perturbed:
            gradient(next(model.parameters())).fill_(torch.inf)


def test_an_accumulation_loop_that_forgets_to_say_so_is_refused() -> None:
    model = two_layers()
    optimizer = sam(model)
    first, second, *_ = zip(DATA[0].split(4), DATA[1].split(4), strict=True)
    passes(optimizer, model, first)
    with untouched(model), pytest.raises(RuntimeError, match="accumulate=True"):
        passes(optimizer, model, second)


def test_a_loop_after_clipping_without_a_step_is_refused() -> None:
    model = two_layers()
    optimizer = sam(model)
    passes(optimizer, model, DATA)
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    with pytest.raises(RuntimeError, match=NEVER_USED):
        passes(optimizer, model, DATA)
    optimizer.step()
    sam_steps(optimizer, model, DATA, 1)


def test_a_gradient_that_was_replaced_and_not_stepped_is_not_lost_either() -> None:
    model = two_layers()
    optimizer = sam(model)
    passes(optimizer, model, DATA)
    for p in model.parameters():
        p.grad = gradient(p) / 2
    with pytest.raises(RuntimeError, match=FOUND):
        passes(optimizer, model, DATA)


def cleared_by(what: str, to_none: bool) -> Callable[[SAM, nn.Module], None]:
    def clear(optimizer: SAM, model: nn.Module) -> None:
        targets = {"sam": optimizer, "base": optimizer.base, "model": model}
        targets[what].zero_grad(set_to_none=to_none)

    return clear


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("what", ["sam", "base", "model"])
@pytest.mark.parametrize("stepped", [True, False])
def test_a_loop_after_clearing_is_welcome(
    stepped: bool, what: str, to_none: bool
) -> None:
    model = two_layers()
    optimizer = sam(model)
    twin = copy.deepcopy(model)
    other = sam(twin)
    passes(optimizer, model, DATA)
    if stepped:
        optimizer.step()
        sam_steps(other, twin, DATA, 1)
    cleared_by(what, to_none)(optimizer, model)
    for each, its in ((model, optimizer), (twin, other)):
        sam_steps(its, each, DATA, 2)
    assert_same(tensors(model), tensors(twin))


def test_a_plain_backward_before_the_loop_is_refused() -> None:
    model = two_layers()
    optimizer = sam(model)
    loss_of(model, DATA).backward()
    with pytest.raises(RuntimeError, match=f"4 of 4 parameters {FOUND}"):
        passes(optimizer, model, DATA)


def test_a_plain_backward_on_top_of_a_used_gradient_is_refused() -> None:
    model = two_layers()
    optimizer = sam(model)
    sam_steps(optimizer, model, DATA, 1)
    loss_of(model, DATA).backward()
    with pytest.raises(RuntimeError, match=FOUND):
        passes(optimizer, model, DATA)


def test_gradients_from_before_sam_do_not_count() -> None:
    model = two_layers()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_of(model, DATA).backward()
    base.step()
    sam_steps(SAM(base, model), model, DATA, 1)


def test_gradients_of_a_copy_do_not_count() -> None:
    model = two_layers()
    optimizer = sam(model)
    sam_steps(optimizer, model, DATA, 1)
    twin, other = copy.deepcopy((model, optimizer))
    sam_steps(other, twin, DATA, 1)


def test_gradients_from_before_sam_over_a_checkpoint_do_not_count() -> None:
    model = two_layers()
    first = sam(model)
    sam_steps(first, model, DATA, 1)
    first.zero_grad()
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    base.load_state_dict(first.state_dict())
    del first
    loss_of(model, DATA).backward()
    sam_steps(SAM(base, model), model, DATA, 1)


def test_gradients_of_a_group_that_is_added_later_do_not_count() -> None:
    model = two_layers()
    base = torch.optim.SGD(model[0].parameters(), lr=0.1)
    optimizer = SAM(base, model)
    sam_steps(optimizer, model, DATA, 1)
    optimizer.add_param_group({"params": [*model[1].parameters()]})
    sam_steps(optimizer, model, DATA, 1)


def test_a_gradient_that_a_new_parameter_brings_does_not_count() -> None:
    model, extra = two_layers(), nn.Parameter(torch.ones(3))
    optimizer = sam(model)
    extra.grad = torch.ones(3)
    optimizer.add_param_group({"params": [extra]})
    refused = None
    try:
        sam_steps(optimizer, model, DATA, 1)
    except RuntimeError as error:
        refused = error
    assert refused is None


def test_a_new_group_does_not_excuse_a_plain_backward() -> None:
    model = two_layers()
    base = torch.optim.SGD(model[0].parameters(), lr=0.1)
    optimizer = SAM(base, model)
    sam_steps(optimizer, model, DATA, 1)
    optimizer.zero_grad()
    loss_of(model, DATA).backward()
    optimizer.add_param_group({"params": [*model[1].parameters()]})
    with pytest.raises(RuntimeError, match=FOUND):
        passes(optimizer, model, DATA)


@pytest.mark.parametrize("chosen", [0, 1])
def test_what_a_loop_left_when_it_broke_off_does_not_count(chosen: int) -> None:
    model = two_layers()
    optimizer = sam(model)
    for probe in optimizer.probes():
        loss_of(model, DATA).backward()
        if probe.index == chosen:
            break
    sam_steps(optimizer, model, DATA, 1)


# GradScaler.


@pytest.mark.parametrize("door", ["sam", "base"])
@pytest.mark.parametrize("unscaled", [True, False])
def test_a_step_that_the_scaler_skipped_is_no_lost_gradient(
    unscaled: bool, door: str
) -> None:
    model = two_layers()
    optimizer, scaler = sam(model), GradScaler("cpu", init_scale=4.0)
    target = optimizer if door == "sam" else optimizer.base
    with untouched(model):
        overflowing(optimizer, model, scaler)
        if unscaled:
            scaler.unscale_(target)
        scaler.step(target)
        scaler.update()
    assert optimizer.param_groups[0]["sam_step"] == 0
    refused = None
    try:
        for _ in optimizer.probes():
            scaler.scale(loss_of(model, DATA)).backward()
    except RuntimeError as error:
        refused = error
    assert refused is None
    scaler.step(target)
    assert optimizer.param_groups[0]["sam_step"] == 1


def test_with_a_scaler_a_forgotten_step_is_found() -> None:
    model = two_layers()
    optimizer, scaler = sam(model), GradScaler("cpu", init_scale=4.0)
    for _ in optimizer.probes():
        scaler.scale(loss_of(model, DATA)).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=NEVER_USED):
        next(optimizer.probes())


def test_a_gradient_in_place_of_one_that_overflowed_is_not_lost() -> None:
    # Without a scaler's step, what is not finite was not skipped.
    model = two_layers()
    optimizer, scaler = sam(model), GradScaler("cpu", init_scale=4.0)
    overflowing(optimizer, model, scaler)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with untouched(model), pytest.raises(RuntimeError, match=FOUND):
        passes(optimizer, model, DATA)


def test_a_step_that_was_skipped_for_an_overflow_elsewhere_is_no_lost_gradient() -> (
    None
):
    # A scaler of sharded weights hears of the overflow from another process.
    model = two_layers()
    optimizer, scaler = sam(model), GradScaler("cpu", init_scale=4.0)
    for _ in optimizer.probes(scaler=scaler):
        scaler.scale(loss_of(model, DATA)).backward()
    scaler.unscale_(optimizer)
    [found] = scaler._found_inf_per_device(optimizer).values()
    found.fill_(1.0)
    with untouched(model):
        scaler.step(optimizer)
    scaler.update()
    assert optimizer.param_groups[0]["sam_step"] == 0
    for _ in optimizer.probes(scaler=scaler):
        scaler.scale(loss_of(model, DATA)).backward()
    scaler.step(optimizer)
    assert optimizer.param_groups[0]["sam_step"] == 1


def test_a_look_at_what_scalers_ask_is_no_step() -> None:
    model = two_layers()
    optimizer = sam(model)
    passes(optimizer, model, DATA)
    assert not optimizer._step_supports_amp_scaling
    with untouched(model), pytest.raises(RuntimeError, match=NEVER_USED):
        passes(optimizer, model, DATA)


# Several optimizers.


def test_two_sams_over_one_module_may_take_turns() -> None:
    model = two_layers()
    twins = [
        SAM(torch.optim.SGD(layer.parameters(), lr=0.1), model, rho=RHO)
        for layer in model
    ]
    for optimizer in (*twins, *twins):
        sam_steps(optimizer, model, DATA, 1)
    assert [o.param_groups[0]["sam_step"] for o in twins] == [2, 2]


@pytest.mark.parametrize("accumulate", [False, True])
def test_a_second_sam_must_not_overwrite_the_gradient_of_the_first(
    accumulate: bool,
) -> None:
    model = two_layers()
    first, second = (
        SAM(torch.optim.SGD(layer.parameters(), lr=0.1), model, rho=RHO)
        for layer in model
    )
    passes(first, model, DATA)
    kept = [gradient(p).clone() for p in model[0].parameters()]
    with pytest.raises(RuntimeError, match="another SAM has finished"):
        next(second.probes(accumulate=accumulate))
    assert all(
        torch.equal(gradient(p), g)
        for p, g in zip(model[0].parameters(), kept, strict=True)
    )
    first.step()
    sam_steps(second, model, DATA, 1)


def test_sams_over_different_modules_do_not_meet() -> None:
    models = two_layers(), two_layers()
    optimizers = [sam(model) for model in models]
    for optimizer, model in zip(optimizers, models, strict=True):
        passes(optimizer, model, DATA)
    for optimizer in optimizers:
        optimizer.step()


def test_a_sam_that_is_gone_guards_nothing() -> None:
    model = two_layers()
    passes(sam(model), model, DATA)
    sam_steps(sam(model), model, DATA, 1)


# Between loop and step, and accumulating.


def test_a_step_along_zeros_needs_a_loop_too() -> None:
    model = two_layers()
    optimizer = sam(model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    with untouched(model), pytest.raises(RuntimeError, match="finished probes"):
        optimizer.step()


def test_a_step_after_gradients_were_set_to_zero_is_refused() -> None:
    model = two_layers()
    optimizer = sam(model)
    passes(optimizer, model, DATA)
    optimizer.zero_grad(set_to_none=False)
    with untouched(model), pytest.raises(RuntimeError, match="finished probes"):
        optimizer.step()


@pytest.mark.parametrize("what", ["sam", "base", "model"])
def test_a_step_after_the_gradient_was_cleared_is_refused(what: str) -> None:
    model = two_layers()
    optimizer = sam(model)
    passes(optimizer, model, DATA)
    cleared_by(what, True)(optimizer, model)
    with untouched(model), pytest.raises(RuntimeError, match="finished probes"):
        optimizer.step()


def test_accumulating_onto_the_gradient_of_the_last_step_is_refused() -> None:
    model = two_layers()
    optimizer = sam(model)
    sam_steps(optimizer, model, DATA, 1)
    with pytest.raises(RuntimeError, match="add to the gradient of the last step"):
        next(optimizer.probes(accumulate=True))
    optimizer.zero_grad(set_to_none=False)
    for _ in optimizer.probes(accumulate=True):
        loss_of(model, DATA).backward()
    optimizer.step()


def test_a_gradient_may_be_changed_between_loop_and_step() -> None:
    model = two_layers()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=1.0), model, rho=RHO)
    w = [p.detach().clone() for p in model.parameters()]
    passes(optimizer, model, DATA)
    halves: list[Tensor] = [gradient(p) / 2 for p in model.parameters()]
    for p, g in zip(model.parameters(), halves, strict=True):
        p.grad = g
    optimizer.step()
    for p, before, g in zip(model.parameters(), w, halves, strict=True):
        torch.testing.assert_close(p.detach(), before - g, rtol=1e-15, atol=0)


def test_a_guard_that_may_not_look_never_waits_for_values() -> None:
    # Values are looked at only where a gradient would otherwise be refused.
    model = two_layers()
    optimizer = sam(model)
    for to_none in (True, False, True):
        sam_steps(optimizer, model, DATA, 1)
        optimizer.zero_grad(set_to_none=to_none)
        with Unseen():
            next(iter(optimizer.probes())).loss = 0.0
        optimizer.zero_grad()


class Unseen:
    """Refuses to turn a tensor into a bool."""

    def __enter__(self) -> None:
        self._kept = Tensor.__bool__
        Tensor.__bool__ = _refuse  # pyright: ignore[reportAttributeAccessIssue]

    def __exit__(self, *_: object) -> None:
        Tensor.__bool__ = self._kept


def _refuse(_: Tensor) -> bool:
    raise AssertionError("somebody looked at a value")


@pytest.mark.parametrize("index", [0, 1])
def test_a_loop_of_another_sam_inside_a_loop_is_refused(index: int) -> None:
    model = two_layers()
    outer, inner = sam(model), sam(model)

    def loop() -> None:
        for probe in outer.probes():
            if probe.index == index:
                outer.zero_grad()
                sam_steps(inner, model, DATA, 1)
            loss_of(model, DATA).backward()

    with untouched(model), pytest.raises(RuntimeError, match="another SAM's"):
        loop()
    passes(outer, model, DATA)


def test_loops_over_two_models_may_be_inside_each_other() -> None:
    outer, inner, twin = (sam(two_layers()) for _ in range(3))
    twin.model.load_state_dict(inner.model.state_dict())
    for _ in outer.probes():
        loss_of(outer.model, DATA).backward()
        sam_steps(inner, inner.model, DATA, 1)
    sam_steps(twin, twin.model, DATA, 2)
    for a, b in zip(inner.model.parameters(), twin.model.parameters(), strict=True):
        assert torch.equal(a, b)

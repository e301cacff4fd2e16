"""A wrapper that comes after SAM is attached to it, or refused when it runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from flatmin import SAM
from flatmin.core import Replica
from tests.distributed import attach_jobs as jobs
from tests.distributed.jobs import network, sgd
from tests.distributed.ranks import Ranks
from tests.distributed.test_checkpoint_sam import world_of_one
from tests.problems import (
    assert_same,
    batch,
    loss_of,
    sam_steps,
    tensors,
    two_layers,
    untouched,
)

__all__ = ["world_of_one"]

DATA = batch(torch.float64)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("scope", [None, "replica", "world"])
def test_a_wrapper_that_comes_later_is_as_good(
    scope: str | None, accumulate: bool, ranks: Ranks
) -> None:
    late = ranks.run(jobs.attached, True, scope, accumulate)
    early = ranks.run(jobs.attached, False, scope, accumulate)
    assert late[0] == late[1] == early[0] == early[1]
    assert late[0][0] == ("World" if scope == "world" else "Replica")


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("wrapper", jobs.WRAPPERS)
def test_a_wrapper_that_sam_was_not_given_is_refused_before_anything_moves(
    wrapper: str, accumulate: bool, ranks: Ranks
) -> None:
    for message, same, hooks in ranks.run(jobs.not_attached, wrapper, accumulate):
        assert "inside of DistributedDataParallel" in message
        assert "optimizer.attach(wrapped_model)" in message
        assert same
        assert hooks == 0


def test_another_module_may_be_wrapped(ranks: Ranks) -> None:
    first, second = ranks.run(jobs.other_wrapped)
    assert first != second


def test_gradients_that_are_averaged_by_hand_need_no_wrapper(ranks: Ranks) -> None:
    first, second = ranks.run(jobs.by_hand)
    assert first == second


@pytest.mark.parametrize("when", ["before", "within", "after"])
def test_shards_in_plain_tensors_are_refused(when: str, ranks: Ranks) -> None:
    for message in ranks.run(jobs.sharded, when):
        kind = "RuntimeError" if when == "after" else "ValueError"
        assert message.startswith(kind)
        assert "FullyShardedDataParallel" in message


def test_shards_of_deepspeed_are_refused() -> None:
    model = network()
    next(model.parameters()).ds_id = 0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match=r"ZeRO-3 .*\(FSDP2\)"):
        SAM(sgd(model), model)


# In one process.


def test_training_goes_on_around_another_module() -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    optimizer, other = (
        SAM(torch.optim.SGD(m.parameters(), lr=0.1), m) for m in (model, twin)
    )
    sam_steps(optimizer, model, DATA, 2)
    steps_before = optimizer.unperturbed_steps
    held = nn.Sequential(model)
    optimizer.attach(held)
    assert optimizer.model is held
    assert optimizer.unperturbed_steps == steps_before
    sam_steps(optimizer, held, DATA, 2)
    sam_steps(other, twin, DATA, 4)
    assert_same(tensors(model), tensors(twin))


def test_steps_that_did_not_climb_are_not_forgotten() -> None:
    model = two_layers()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    for _ in optimizer.probes():
        (loss_of(model, DATA) * 0).backward()
    optimizer.step()
    optimizer.attach(nn.Sequential(model))
    assert optimizer.unperturbed_steps == 1


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (two_layers, TypeError, "must be a torch.nn.Module"),
        (two_layers(), ValueError, "no parameter in common"),
        (nn.ReLU(), ValueError, "has no parameters"),
    ],
)
def test_what_cannot_be_attached_is_refused(
    wrong: Any, kind: type[Exception], message: str
) -> None:
    model = two_layers()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    with pytest.raises(kind, match=message):
        optimizer.attach(wrong)
    assert optimizer.model is model
    sam_steps(optimizer, model, DATA, 1)


def test_nothing_is_attached_inside_the_loop() -> None:
    model = two_layers()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    for _ in optimizer.probes():
        loss_of(model, DATA).backward()
        with untouched(model), pytest.raises(RuntimeError, match="after the loop"):
            optimizer.attach(nn.Sequential(model))
    optimizer.step()


@pytest.mark.parametrize("wrong", ["global", "World", Replica, 3, nn.ReLU()])
def test_a_scope_that_is_none_is_refused_at_once(wrong: Any) -> None:
    model = two_layers()
    with pytest.raises(TypeError, match=r"'replica', 'world', or flatmin\.core\.Group"):
        SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, scope=wrong)


def test_scopes_have_names() -> None:
    model = two_layers()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    assert isinstance(SAM(base, model, scope="replica").scope, Replica)

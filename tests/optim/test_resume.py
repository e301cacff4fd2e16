"""10 steps, a file, fresh objects and 10 more are 20 steps, bit for bit."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict

from flatmin import SAM, friendly_sam
from flatmin.core import Step, TwoPoint
from tests.problems import (
    Noisy,
    assert_same,
    assert_same_state,
    batch,
    loss_of,
    mlp,
    plain_steps,
    sam_steps,
    snapshot,
    tensors,
    without,
)
from tests.registry import BASES, MOMENTUM, ROWS, Base, Row, name_of

DATA = batch()


def every_third(step: Step) -> bool:
    return step.index % 3 == 0


GATED = Row("gated", MOMENTUM, {"method": TwoPoint(gate=every_third)})
every_row = pytest.mark.parametrize("row", [*ROWS, GATED], ids=name_of)


def train(optimizer: SAM, model: nn.Module, n: int) -> None:
    """``n`` steps whose dropout depends on the step alone."""
    for _ in range(n):
        torch.manual_seed(optimizer.param_groups[0]["sam_step"])
        sam_steps(optimizer, model, DATA, 1)


def through_a_file(content: Any, folder: Path) -> Any:
    torch.save(content, folder / "checkpoint.pt")
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def assert_continued(
    model: nn.Module, optimizer: SAM, twin: nn.Module, other: SAM
) -> None:
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)
    mine, others = (o.state_dict()["param_groups"] for o in (optimizer, other))
    assert mine == others


@every_row
@pytest.mark.parametrize("door", ["sam", "base"])
def test_a_checkpoint_continues(row: Row, door: str, tmp_path: Path) -> None:
    model = Noisy()
    start = copy.deepcopy(model.state_dict())
    optimizer = row.build(model)
    train(optimizer, model, 10)
    saved = optimizer if door == "sam" else optimizer.base
    content = {"model": model.state_dict(), "optimizer": saved.state_dict()}
    content = through_a_file(content, tmp_path)
    train(optimizer, model, 10)

    twin = Noisy()
    assert not torch.equal(tensors(twin)["0.weight"], start["0.weight"])
    other = row.build(twin)
    twin.load_state_dict(content["model"])
    (other if door == "sam" else other.base).load_state_dict(content["optimizer"])
    train(other, twin, 10)
    assert_continued(model, optimizer, twin, other)


def test_a_base_can_load_a_checkpoint_before_it_is_wrapped(tmp_path: Path) -> None:
    model = Noisy()
    optimizer = SAM(MOMENTUM.build(model.parameters()), model, rho=0.3)
    train(optimizer, model, 4)
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    content = through_a_file(content, tmp_path)
    train(optimizer, model, 4)

    twin = Noisy()
    twin.load_state_dict(content["model"])
    base = MOMENTUM.build(twin.parameters())
    base.load_state_dict(content["optimizer"])
    other = SAM(base, twin)
    train(other, twin, 4)
    assert_continued(model, optimizer, twin, other)


def test_a_base_that_has_loaded_a_checkpoint_is_not_taken() -> None:
    model = Noisy()
    base = MOMENTUM.build(model.parameters())
    base.load_state_dict(SAM(MOMENTUM.build(model.parameters()), model).state_dict())
    with without(ValueError, "it belongs to nobody"):
        SAM(base, model)


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_checkpoint_in_the_middle_of_an_interval_continues(
    stop: int, tmp_path: Path
) -> None:
    model = Noisy()
    optimizer = GATED.build(model)
    train(optimizer, model, stop)
    twin = Noisy()
    twin.load_state_dict(model.state_dict())
    other = GATED.build(twin)
    other.load_state_dict(through_a_file(optimizer.state_dict(), tmp_path))
    for _ in range(4):
        train(optimizer, model, 1)
        train(other, twin, 1)
        assert other.statistics.passes == optimizer.statistics.passes
    assert_continued(model, optimizer, twin, other)


@pytest.mark.parametrize("base", BASES, ids=name_of)
def test_the_state_is_that_of_the_base(base: Base) -> None:
    model = Noisy()
    twin = copy.deepcopy(model)
    plain, optimizer = base.build(twin.parameters()), Row("", base).build(model)
    plain_steps(plain, twin, DATA, 1)
    sam_steps(optimizer, model, DATA, 1)
    mine, its = optimizer.state_dict()["state"], plain.state_dict()["state"]
    assert {k: set(v) for k, v in mine.items()} == {k: set(v) for k, v in its.items()}
    for ours, theirs in zip(optimizer.param_groups, plain.param_groups, strict=True):
        assert set(ours) - set(theirs) == {"sam_rho", "sam_step"}


@pytest.mark.parametrize("door", ["sam", "base"])
def test_the_checkpoint_of_a_plain_optimizer_continues_with_sam(door: str) -> None:
    model = Noisy()
    plain = MOMENTUM.build(model.parameters())
    plain_steps(plain, model, DATA, 3)
    twin = copy.deepcopy(model)
    optimizer = SAM(MOMENTUM.build(twin.parameters()), twin, rho=0.25)
    target = optimizer if door == "sam" else optimizer.base
    target.load_state_dict(plain.state_dict())
    assert_same_state(optimizer, plain)
    sam_steps(optimizer, twin, DATA, 1)
    assert optimizer.statistics.passes == 2
    assert optimizer.param_groups[0]["sam_rho"] == 0.25
    assert optimizer.param_groups[0]["sam_step"] == 1


def test_a_plain_optimizer_continues_from_the_checkpoint_of_sam() -> None:
    model = Noisy()
    optimizer = SAM(MOMENTUM.build(model.parameters()), model)
    sam_steps(optimizer, model, DATA, 3)
    plain = MOMENTUM.build(model.parameters())
    plain.load_state_dict(optimizer.state_dict())
    assert_same_state(plain, optimizer)
    plain_steps(plain, model, DATA, 1)


def test_radii_come_back_with_the_checkpoint() -> None:
    model = Noisy()
    optimizer = SAM(MOMENTUM.build(model.parameters()), model, rho=0.3)
    optimizer.param_groups[0]["sam_rho"] = 0.7
    other = SAM(MOMENTUM.build(model.parameters()), model, rho=0.1)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["sam_rho"] == 0.7


def test_an_impossible_radius_in_a_checkpoint_is_refused() -> None:
    model = Noisy()
    optimizer = SAM(MOMENTUM.build(model.parameters()), model)
    content = optimizer.state_dict()
    content["param_groups"][0]["sam_rho"] = -1.0
    with pytest.raises(ValueError, match=r"sam_rho must be finite and >= 0, got -1"):
        optimizer.load_state_dict(content)


def deep(pair: tuple[nn.Module, SAM]) -> tuple[nn.Module, SAM]:
    return copy.deepcopy(pair)


def pickled(pair: tuple[nn.Module, SAM]) -> tuple[nn.Module, SAM]:
    return pickle.loads(pickle.dumps(pair))


@pytest.mark.parametrize("clone", [deep, pickled])
@pytest.mark.parametrize(
    "row", [row for row in [*ROWS, GATED] if row.base.copies], ids=name_of
)
def test_a_copy_of_model_and_optimizer_continues(row: Row, clone: Any) -> None:
    model = Noisy()
    optimizer = row.build(model)
    train(optimizer, model, 4)
    twin, other = clone((model, optimizer))
    assert other.model is twin
    assert other.param_groups is other.base.param_groups
    train(optimizer, model, 4)
    assert not torch.equal(tensors(model)["0.weight"], tensors(twin)["0.weight"])
    train(other, twin, 4)
    assert_continued(model, optimizer, twin, other)


def test_the_base_of_a_copy_is_taken_as_well() -> None:
    model = Noisy()
    _, other = deep((model, SAM(MOMENTUM.build(model.parameters()), model)))
    with pytest.raises(ValueError, match="base already belongs to a SAM"):
        SAM(other.base, other.model)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_the_state_of_distributed_checkpoints_can_be_made_before_the_first_step(
    kind: type[torch.optim.Optimizer],
) -> None:
    model = mlp()
    before = snapshot(model)
    optimizer = SAM(kind(model.parameters(), lr=0.1), model)  # type: ignore[call-arg]
    state: Any = get_state_dict(model, optimizer)[1]
    assert_same(snapshot(model), before)
    names = {name for name, _ in model.named_parameters()}
    assert state["state"].keys() == (names if kind is torch.optim.AdamW else set())
    assert [group["sam_step"] for group in optimizer.param_groups] == [0]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]
    with pytest.raises(RuntimeError, match="finished probes"):
        optimizer.step()


def test_a_look_at_the_state_leaves_a_base_without_state_as_it_was() -> None:
    model = mlp()
    twin = copy.deepcopy(model)
    optimizer, other = (
        friendly_sam(torch.optim.SGD(each.parameters(), lr=0.1), each)
        for each in (model, twin)
    )
    get_state_dict(model, optimizer)
    for each, its in ((model, optimizer), (twin, other)):
        for _ in its.probes():
            assert len(its.state) == 0
            loss_of(each, batch(torch.float64)).backward()
        its.step()
    assert_same(snapshot(model), snapshot(twin))
    assert_same_state(optimizer, other)


def test_a_learning_rate_of_zero_does_not_excuse_a_step_without_probes() -> None:
    model = mlp()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.0), model)
    loss_of(model, batch(torch.float64)).backward()
    with pytest.raises(RuntimeError, match="finished probes"):
        optimizer.step()

"""torch.distributed.checkpoint takes the SAM object like any other optimizer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)

from flatmin import SAM
from tests.distributed import checkpoint_jobs as jobs
from tests.distributed.checkpoint_jobs import (
    BASES,
    MORE,
    STEPS,
    load,
    result,
    sam,
    save,
)
from tests.distributed.jobs import RHO, network
from tests.distributed.ranks import Ranks
from tests.distributed.shard_jobs import train
from tests.distributed.test_ddp import close
from tests.problems import (
    OneProcess,
    assert_same,
    assert_same_state,
    tensors,
    untouched,
)

every_base = pytest.mark.parametrize("base", BASES)
every_door = pytest.mark.parametrize("via", ["sam", "base"])
every_kind = pytest.mark.parametrize("kind", ["layers", "tensor"])
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "full": {"full_state_dict": True, "cpu_offload": True},
    "flat": {"flatten_optimizer_state_dict": True},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@pytest.fixture
def world_of_one() -> Iterator[None]:
    with OneProcess():
        yield


def uninterrupted(base: str) -> dict[str, Any]:
    model = network()
    optimizer = sam(model, base)
    train(model, optimizer, range(MORE.stop), None)
    return result(model, optimizer)


def trained(base: str) -> tuple[nn.Module, SAM]:
    model = network()
    optimizer = sam(model, base)
    train(model, optimizer, STEPS, None)
    return model, optimizer


def flat(content: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one, for a comparison leaf by leaf."""
    if isinstance(content, dict):
        pairs = [(str(key), value) for key, value in content.items()]
    elif isinstance(content, list):
        pairs = [(str(k), value) for k, value in enumerate(content)]
    else:
        return {name: content.tolist() if isinstance(content, Tensor) else content}
    leaves: dict[str, Any] = {}
    for key, value in pairs:
        leaves |= flat(value, f"{name}.{key}")
    return leaves


def without_sam(leaves: dict[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in leaves.items() if "sam_" not in name}


@every_base
def test_asking_for_the_state_of_a_new_sam_changes_nothing(base: str) -> None:
    model = network()
    optimizer = sam(model, base)
    groups = copy.deepcopy(optimizer.state_dict()["param_groups"])
    with untouched(model):
        get_state_dict(model, optimizer)
    assert optimizer.state_dict()["param_groups"] == groups
    assert all(p.grad is None for p in model.parameters())
    assert optimizer.statistics.passes == 0
    assert optimizer.unperturbed_steps == 0


@every_base
def test_training_after_a_look_at_the_state_is_training_after_torchs_own(
    base: str,
) -> None:
    # torch's trial step counts as one for AdamW, with or without SAM.
    model, twin = network(), network()
    optimizer, other = sam(model, base), sam(twin, base)
    get_state_dict(model, optimizer)
    get_state_dict(twin, other.base)
    for each, its in ((model, optimizer), (twin, other)):
        train(each, its, STEPS, None)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


@every_base
def test_a_look_at_the_state_does_not_open_the_door_to_steps(base: str) -> None:
    model = network()
    optimizer = sam(model, base)
    get_state_dict(model, optimizer)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with untouched(model), pytest.raises(RuntimeError, match="finished probes"):
        optimizer.step()


@every_base
def test_a_look_between_loop_and_step_changes_neither(base: str) -> None:
    model, twin = network(), network()
    optimizer, other = sam(model, base), sam(twin, base)
    for each, its in ((model, optimizer), (twin, other)):
        train(each, its, STEPS, None)
        for _ in its.probes():
            each(torch.ones(2, 5, dtype=torch.float64)).square().sum().backward()
        if its is optimizer:
            get_state_dict(model, optimizer)
        its.step()
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


@every_base
@every_option
def test_the_state_through_sam_is_that_of_the_base(
    options: dict[str, Any], base: str
) -> None:
    model, optimizer = trained(base)
    wanted = StateDictOptions(**options)
    mine = flat(get_optimizer_state_dict(model, optimizer, options=wanted))
    its = flat(get_optimizer_state_dict(model, optimizer.base, options=wanted))
    assert mine == its
    assert any(name.endswith("sam_step") for name in mine)
    assert len(without_sam(mine)) < len(mine)


@every_base
@every_option
def test_the_state_of_a_new_sam_is_that_of_a_new_base(
    options: dict[str, Any], base: str
) -> None:
    model, twin = network(), network()
    wanted = StateDictOptions(**options)
    mine = get_optimizer_state_dict(model, sam(model, base), options=wanted)
    bare = get_optimizer_state_dict(twin, BASES[base](twin), options=wanted)
    assert without_sam(flat(mine)) == without_sam(flat(bare))


CASES = [
    pytest.param(options, base, id=f"{name}-{base}")
    for name, options in OPTIONS.items()
    for base in BASES
    # Where there is no state, torch has none to fill: see the test below.
    if (name, base) not in {("full", "plain"), ("flat", "plain")}
]


@pytest.mark.parametrize(("options", "base"), CASES)
def test_a_new_sam_continues_bit_for_bit(options: dict[str, Any], base: str) -> None:
    model, optimizer = trained(base)
    wanted = StateDictOptions(**options)
    weights, state = get_state_dict(model, optimizer, options=wanted)
    weights, state = copy.deepcopy((weights, state))
    train(model, optimizer, MORE, None)
    twin = network()
    other = sam(twin, base, rho=9.0)
    set_state_dict(
        twin, other, model_state_dict=weights, optim_state_dict=state, options=wanted
    )
    assert [group["sam_step"] for group in other.param_groups] == [
        STEPS.stop for _ in other.param_groups
    ]
    train(twin, other, MORE, None)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


@every_door
def test_a_full_state_without_state_is_refused_by_torch(via: str) -> None:
    model, optimizer = trained("plain")
    wanted = StateDictOptions(**OPTIONS["full"])
    target = jobs.door(optimizer, via)
    state = get_optimizer_state_dict(model, target, options=wanted)
    with pytest.raises(AssertionError, match="Expected device to be set"):
        set_optimizer_state_dict(model, target, state, options=wanted)


@every_base
def test_a_trained_sam_returns_to_an_earlier_state(base: str) -> None:
    model, optimizer = trained(base)
    expected = copy.deepcopy(optimizer.state_dict())
    content = copy.deepcopy(get_state_dict(model, optimizer))
    train(model, optimizer, MORE, None)
    set_state_dict(
        model, optimizer, model_state_dict=content[0], optim_state_dict=content[1]
    )
    assert flat(optimizer.state_dict()["state"]) == flat(expected["state"])
    assert [g["sam_step"] for g in optimizer.param_groups] == [
        g["sam_step"] for g in expected["param_groups"]
    ]


def test_the_checkpoint_of_a_plain_optimizer_continues_with_sam() -> None:
    # It knows nothing of radius and step: SAM keeps its own.
    model, twin = network(), network()
    state = get_optimizer_state_dict(model, BASES["adamw"](model))
    optimizer = sam(twin, "adamw", rho=0.3)
    set_optimizer_state_dict(twin, optimizer, copy.deepcopy(state))
    assert optimizer.param_groups[0]["sam_rho"] == 0.3
    train(twin, optimizer, STEPS, None)
    assert optimizer.param_groups[0]["sam_step"] == 5


# Through files, and to another number of processes.


@pytest.mark.usefixtures("world_of_one")
@pytest.mark.parametrize("base", ["momentum", "adamw"])
def test_files_of_a_plain_optimizer_load_in_part(base: str, tmp_path: Path) -> None:
    model, twin = network(), network()
    plain = BASES[base](model)
    for group in plain.param_groups:
        group.pop("sam_rho", None)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    plain.step()
    save(model, plain, str(tmp_path))
    optimizer = sam(twin, base, rho=0.3)
    weights, state = get_state_dict(twin, optimizer)
    state_dict_loader.load(
        {"model": weights, "optimizer": state},
        checkpoint_id=str(tmp_path),
        planner=DefaultLoadPlanner(allow_partial_load=True),
    )
    set_state_dict(twin, optimizer, model_state_dict=weights, optim_state_dict=state)
    assert optimizer.param_groups[0]["sam_rho"] == 0.3
    assert_same(tensors(model), tensors(twin))
    train(twin, optimizer, STEPS, None)
    assert optimizer.param_groups[0]["sam_step"] == STEPS.stop


@every_kind
@every_base
def test_asking_sharded_ranks_for_the_state_changes_nothing(
    base: str, kind: str, ranks: Ranks
) -> None:
    assert ranks.run(jobs.looked_at, base, kind) == [[True] * 4] * 2


@pytest.mark.usefixtures("world_of_one")
@every_base
@every_kind
def test_two_ranks_save_and_one_process_continues(
    kind: str, base: str, ranks: Ranks, tmp_path: Path
) -> None:
    ranks.run(jobs.save_from_two, base, kind, "sam", str(tmp_path))
    model = network()
    optimizer = sam(model, base, rho=9.0)
    load(model, optimizer, str(tmp_path))
    train(model, optimizer, MORE, None)
    assert_continued(result(model, optimizer), uninterrupted(base))


@pytest.mark.usefixtures("world_of_one")
@every_base
@every_kind
def test_one_process_saves_and_two_ranks_continue(
    kind: str, base: str, ranks: Ranks, tmp_path: Path
) -> None:
    save(*trained(base), str(tmp_path))
    for answer in ranks.run(jobs.continue_on_two, base, kind, "sam", str(tmp_path)):
        assert_continued(answer, uninterrupted(base))


@every_door
def test_ranks_load_through_one_door_what_was_saved_through_the_other(
    via: str, ranks: Ranks, tmp_path: Path
) -> None:
    folder, other = str(tmp_path), "base" if via == "sam" else "sam"
    ranks.run(jobs.save_from_two, "adamw", "layers", via, folder)
    for answer in ranks.run(jobs.continue_on_two, "adamw", "layers", other, folder):
        assert_continued(answer, uninterrupted("adamw"))


def assert_continued(found: dict[str, Any], expected: dict[str, Any]) -> None:
    close(found["weights"], expected["weights"])
    assert found["steps"] == expected["steps"]
    assert found["radii"] == expected["radii"]
    assert found["radii"][0] == RHO

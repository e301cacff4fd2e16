"""What methods remember survives torch.distributed.checkpoint."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.nn.functional import cross_entropy

from flatmin import SAM, friendly_sam
from flatmin.core import TwoPoint, gates, sources
from tests.distributed import method_jobs as jobs
from tests.distributed.checkpoint_jobs import door, load, save
from tests.distributed.method_jobs import network, outcome, steps
from tests.distributed.ranks import Ranks
from tests.distributed.test_checkpoint_sam import world_of_one
from tests.distributed.test_methods import CHOOSING, REFUSED, close
from tests.methods.table import NAMES, TRAITS, built
from tests.problems import Quadratic, assert_same, assert_same_state, tensors

__all__ = ["world_of_one"]

#: Methods that remember, and what makes them refuse shards is not in the way.
REMEMBER = tuple(
    name
    for name, traits in TRAITS.items()
    if traits.remembers or traits.notes
    if (name, "layers") not in REFUSED and name not in CHOOSING
)


def trained(name: str, n: int) -> tuple[nn.Module, SAM]:
    model = network()
    optimizer = built(name, model)
    steps(optimizer, model, None, n)
    return model, optimizer


@pytest.mark.usefixtures("world_of_one")
@pytest.mark.parametrize("after", [0, 1, 5])
@pytest.mark.parametrize("name", NAMES)
def test_a_new_optimizer_continues_bit_for_bit(
    name: str, after: int, tmp_path: Path
) -> None:
    model, optimizer = trained(name, after)
    save(model, optimizer, str(tmp_path))
    twin = network()
    other = built(name, twin)
    load(twin, other, str(tmp_path))
    for net, opt in ((model, optimizer), (twin, other)):
        steps(opt, net, None, 5)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)
    mine, its = (o.state_dict()["param_groups"] for o in (optimizer, other))
    assert [str(group) for group in mine] == [str(group) for group in its]


@pytest.mark.usefixtures("world_of_one")
@pytest.mark.parametrize("name", REMEMBER)
def test_memory_of_narrow_weights_continues_bit_for_bit(
    name: str, tmp_path: Path
) -> None:
    """It is as wide in the new optimizer, whose blanks it replaces."""
    x, y = torch.randn(12, 5).bfloat16(), torch.randint(3, (12,))

    def narrow() -> tuple[nn.Module, SAM]:
        model = network().bfloat16()
        return model, built(name, model)

    def train(model: nn.Module, optimizer: SAM) -> None:
        for _ in range(4):
            for probe in optimizer.probes():
                a, b = probe.take(x, y)
                probe.backward(cross_entropy(model(a).float(), b, reduction="none"))
            optimizer.step()

    pairs = [narrow() for _ in range(2)]
    (model, optimizer), (twin, other) = pairs
    train(model, optimizer)
    save(model, optimizer, str(tmp_path))
    load(twin, other, str(tmp_path))
    for net, opt in pairs:
        train(net, opt)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


@pytest.mark.usefixtures("world_of_one")
@pytest.mark.parametrize("name", REMEMBER)
def test_two_ranks_save_and_one_process_continues(
    name: str, ranks: Ranks, tmp_path: Path
) -> None:
    ranks.run(jobs.save_sharded, name, 5, str(tmp_path))
    model = network()
    optimizer = built(name, model)
    load(model, optimizer, str(tmp_path))
    steps(optimizer, model, None, 5)
    expected = trained(name, 5)
    steps(expected[1], expected[0], None, 5)
    close(outcome(optimizer, model), outcome(expected[1], expected[0]))


@pytest.mark.usefixtures("world_of_one")
@pytest.mark.parametrize("name", REMEMBER)
def test_one_process_saves_and_two_ranks_continue(
    name: str, ranks: Ranks, tmp_path: Path
) -> None:
    model, optimizer = trained(name, 5)
    save(model, optimizer, str(tmp_path))
    steps(optimizer, model, None, 5)
    for found in ranks.run(jobs.continue_sharded, name, 5, str(tmp_path)):
        close(found, outcome(optimizer, model))


@pytest.mark.parametrize("via", ["sam", "base"])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", [*REMEMBER, "sparse_sam"])
def test_a_new_optimizer_remembers_what_was_saved_flat_or_not(
    name: str, flat: bool, via: str
) -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, optimizer = trained(name, 5)
    content = get_state_dict(model, door(optimizer, via), options=options)
    weights, state = copy.deepcopy(content)
    twin = network()
    other = built(name, twin)
    set_state_dict(
        twin,
        door(other, via),
        model_state_dict=weights,
        optim_state_dict=state,
        options=options,
    )
    for net, opt in ((model, optimizer), (twin, other)):
        steps(opt, net, None, 5)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


@pytest.mark.parametrize("via", ["sam", "base"])
@pytest.mark.parametrize("name", ["friendly_sam", "ae_sam"])
def test_nothing_remains_of_a_trial_step_after_which_nothing_was_loaded(
    name: str, via: str
) -> None:
    model, twin = network(), network()
    optimizer, other = built(name, model), built(name, twin)
    for net, opt in ((model, optimizer), (twin, other)):
        opt.base.defaults["momentum"] = 0.0
        for group in opt.param_groups:
            group["momentum"] = 0.0
        if opt is optimizer:
            get_state_dict(net, door(opt, via))
            assert opt.param_groups[0]["sam_step"] == 0
        steps(opt, net, None, 3)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_remembered_is_declared(name: str) -> None:
    _, optimizer = trained(name, 4)
    kept = {key for entry in optimizer.base.state.values() for key in entry}
    noted = set(optimizer.param_groups[0])
    traits = optimizer.method.traits
    ours = {key.removeprefix("sam_") for key in kept | noted if key[:4] == "sam_"}
    assert ours - {"rho", "step"} == {*traits.remembers, *traits.notes}


def late_friend(model: nn.Module) -> SAM:
    """A method that begins to remember in its fourth step."""
    source = sources.friendly(1.0, 0.9)
    method = TwoPoint(source=source, gate=gates.last(0.25, 4))
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    return SAM(base, model, method=method, decay_in_ascent=True)


def test_what_is_not_yet_remembered_is_nan_on_the_way_and_nothing_after() -> None:
    model = network()
    optimizer = late_friend(model)
    steps(optimizer, model, None, 2)
    content = optimizer.state_dict()
    for entry in content["state"].values():
        assert entry["sam_friend"].isnan().all()
    assert not any("sam_friend" in entry for entry in optimizer.state.values())
    twin = network()
    other = late_friend(twin)
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(content)
    assert not any("sam_friend" in entry for entry in other.state.values())
    for net, opt in ((model, optimizer), (twin, other)):
        steps(opt, net, None, 4)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


def test_a_number_that_is_not_yet_noted_is_nan_on_the_way() -> None:
    model = network()
    optimizer = built("ae_sam", model)
    content = optimizer.state_dict()
    assert math.isnan(content["param_groups"][0].get("sam_steep_mean", 0.0))
    optimizer.load_state_dict(content)
    assert "sam_steep_mean" not in optimizer.param_groups[0]


def test_a_frozen_parameter_has_no_entry() -> None:
    model = network()
    next(model.parameters()).requires_grad_(False)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = friendly_sam(base, model)
    steps(optimizer, model, None, 1)
    assert sorted(optimizer.state_dict()["state"]) == [1, 2, 3, 4, 5]


def late_friend_of_adam(model: nn.Module) -> SAM:
    method = TwoPoint(source=sources.friendly(1.0, 0.9), gate=gates.last(0.25, 4))
    return SAM(torch.optim.Adam(model.parameters(), lr=0.01), model, method=method)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("unused", [False, True])
def test_a_base_that_wants_a_state_of_its_own_can_load_what_was_saved(
    unused: bool, after: int
) -> None:
    model, twin = network(), network()
    for each in (model, twin):
        if unused:
            each.register_parameter("unused", nn.Parameter(torch.ones(2).double()))
    optimizer, other = late_friend_of_adam(model), late_friend_of_adam(twin)
    steps(optimizer, model, None, after)
    content = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    twin.load_state_dict(content[0])
    other.load_state_dict(content[1])
    for net, opt in ((model, optimizer), (twin, other)):
        steps(opt, net, None, 5)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


def test_the_state_of_sam_itself_stays_that_of_the_base() -> None:
    model = Quadratic()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    assert optimizer.state_dict() == optimizer.base.state_dict()


def test_a_trained_method_returns_to_an_earlier_state() -> None:
    model, optimizer = trained("looksam", 4)
    content = copy.deepcopy(get_state_dict(model, optimizer))
    expected = copy.deepcopy(optimizer.state_dict())
    steps(optimizer, model, None, 5)
    set_state_dict(
        model, optimizer, model_state_dict=content[0], optim_state_dict=content[1]
    )
    for at, entry in optimizer.state_dict()["state"].items():
        assert torch.equal(entry["sam_look"], expected["state"][at]["sam_look"])

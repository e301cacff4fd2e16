"""Other ways into a method: closures, accumulation, new groups, missing gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin import SAM
from flatmin.methods import METHODS
from tests.methods.table import (
    NAMES,
    OPTIONS,
    TRAITS,
    answer,
    base_for,
    built,
    data_of,
    index_of,
    prepare,
    states,
    train,
)
from tests.problems import (
    Batch,
    Branching,
    Noisy,
    assert_same,
    assert_same_state,
    tensors,
    untouched,
)

every_method = pytest.mark.parametrize("name", NAMES)


def noisy() -> Noisy:
    torch.manual_seed(0)
    return Noisy().double()


def closure_of(optimizer: SAM, model: nn.Module) -> Callable[[], Tensor]:
    x, y = data_of(index_of(optimizer))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return closure


def plain_step(optimizer: SAM, model: nn.Module) -> None:
    """What a closure does, in a loop."""
    x, y = data_of(index_of(optimizer))
    for probe in optimizer.probes():
        loss = F.cross_entropy(model(x), y)
        probe.backward(loss)
        probe.loss = loss
    optimizer.step()


#: They want more than a loss of all examples and its gradient.
ASKS_MORE = tuple(
    name
    for name, traits in TRAITS.items()
    if traits.second_order
    or traits.needs_losses
    or traits.needs_take
    or traits.needs_parts
)


@every_method
def test_steps_with_a_closure_equal_probes(name: str) -> None:
    if name in ASKS_MORE:
        return
    model, twin = noisy(), noisy()
    optimizer, other = built(name, model), built(name, twin)
    for step in range(7):
        torch.manual_seed(step)
        loss = optimizer.step(closure_of(optimizer, model))
        torch.manual_seed(step)
        plain_step(other, twin)
        assert loss == other.statistics.loss
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


@pytest.mark.parametrize("name", ASKS_MORE)
def test_a_closure_that_tells_too_little_is_refused(name: str) -> None:
    model = noisy()
    optimizer = built(name, model)
    # Sparse SAM looks at a part of the batch in every fourth step, late ones from 6 on.
    train(optimizer, model, 8)
    with (
        untouched(model),
        pytest.raises(RuntimeError, match=r"probe\.(backward|take|total)"),
    ):
        optimizer.step(closure_of(optimizer, model))
    train(optimizer, model, 2)


def halves(step: int) -> list[Batch]:
    x, y = data_of(step)
    return [(x[:6], y[:6]), (x[6:], y[6:])]


def micro(optimizer: SAM, model: nn.Module, data: Batch, *, accumulate: bool) -> None:
    torch.manual_seed(len(data[1]) + int(data[1].sum()))
    for probe in optimizer.probes(accumulate=accumulate):
        answer(probe, model, data, 0.5)


@every_method
def test_accumulating_loops_add_what_each_finds_alone(name: str) -> None:
    if not TRAITS[name].adds_up:
        return
    model = noisy()
    optimizer = built(name, model)
    for step in range(6):
        alone: list[list[Tensor]] = []
        for half in halves(step):
            twin, other = copy.deepcopy((model, optimizer))
            micro(other, twin, half, accumulate=False)
            alone.append([p.grad for p in twin.parameters() if p.grad is not None])
        optimizer.zero_grad()
        with untouched(model):
            for half in halves(step):
                micro(optimizer, model, half, accumulate=True)
        for p, a, b in zip(model.parameters(), *alone, strict=True):
            assert p.grad is not None
            assert torch.equal(p.grad, a + b)
        optimizer.step()
    assert all(v.isfinite().all() for v in states(optimizer).values())


@pytest.mark.parametrize("decay_in_ascent", [False, True])
def test_what_holds_a_running_mean_is_not_added_up(decay_in_ascent: bool) -> None:
    model = noisy()
    optimizer = built("bsam", model, decay_in_ascent=decay_in_ascent)
    with pytest.raises(RuntimeError, match="once per micro-batch"):
        micro(optimizer, model, halves(0)[0], accumulate=True)
    train(optimizer, model, 1)


class Growing(nn.Module):
    """A second layer beside the first, which may join in later."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(6, dtype=torch.float64)
        self.first = nn.Linear(6, 3, dtype=torch.float64)
        self.late = nn.Linear(6, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.first(x).tanh() + self.late(x)


def growing(name: str, base: str) -> tuple[Growing, SAM]:
    model = Growing()
    first = [*model.norm.parameters(), *model.first.parameters()]
    prepare(name, model)
    made = base_for(name, first, base)
    optimizer = METHODS[name].build(made, model, **OPTIONS.get(name, {}))
    return model, optimizer


@every_method
@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_a_group_may_join_in_the_middle(name: str, base: str, tmp_path: Path) -> None:
    model, optimizer = growing(name, base)
    train(optimizer, model, 5)
    optimizer.add_param_group({"params": list(model.late.parameters()), "lr": 0.05})
    before = model.late.weight.detach().clone()
    train(optimizer, model, 3)
    assert not torch.equal(model.late.weight, before)
    assert [group["sam_step"] for group in optimizer.param_groups] == [8, 8]
    twin, other = growing(name, base)
    other.add_param_group({"params": list(twin.late.parameters())})
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "checkpoint.pt")
    loaded = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    twin.load_state_dict(loaded["model"])
    other.load_state_dict(loaded["optimizer"])
    train(optimizer, model, 4)
    train(other, twin, 4)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, other)


def normed(model: nn.Module) -> nn.Module:
    """With a layer in front that normalises, for sam_on to move."""
    return nn.Sequential(nn.LayerNorm(6), model).double()


@every_method
@pytest.mark.parametrize("skip", [(0,), (1,), (0, 1), (1, 2, 3), (2, 3, 4, 5)], ids=str)
def test_a_layer_may_be_skipped_in_some_passes(
    name: str, skip: tuple[int, ...]
) -> None:
    model = normed(Branching(*skip))
    optimizer = built(name, model)
    for step in range(6):
        with untouched(model):
            for probe in optimizer.probes():
                answer(probe, model, data_of(step))
        optimizer.step()
    # In a state dict, what is not remembered is NaN.
    kept = [v for entry in optimizer.state.values() for v in entry.values()]
    values = [*tensors(model).values(), *(torch.as_tensor(v) for v in kept)]
    assert all(v.isfinite().all() for v in values)


@every_method
@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_a_layer_that_is_never_used_is_left_alone(name: str, base: str) -> None:
    branching = Branching(*range(100))
    model = normed(branching)
    optimizer = built(name, model, base)
    before = branching.maybe.weight.detach().clone()
    train(optimizer, model, 6)
    assert torch.equal(branching.maybe.weight, before)
    assert not optimizer.state.get(branching.maybe.weight)
    branching.skip = ()
    train(optimizer, model, 6)
    assert not torch.equal(branching.maybe.weight, before)


@every_method
@pytest.mark.parametrize("rho", [-0.1, float("inf"), float("nan")])
def test_an_impossible_radius_is_refused(name: str, rho: float) -> None:
    model = noisy()
    with pytest.raises(ValueError, match=f"rho.* got {rho}"):
        built(name, model, rho=rho)

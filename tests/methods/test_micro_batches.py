"""What a method remembers of a step's micro-batches is the mean of what each found."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin import SAM, methods
from flatmin.core import Memory
from flatmin.core._program import Carried
from tests.methods.against import STEPS, Pair, batch_of, close, net
from tests.methods.table import NAMES, TRAITS, answer, built, data_of
from tests.problems import Batch
from tests.reference import micro

RHO = 0.1
PARTS = (4, 6, 2)


def parts_of(step: int) -> list[Batch]:
    x, y = batch_of(step)
    return list(zip(x.split(PARTS), y.split(PARTS), strict=True))


def references(pair: Pair) -> list[list[micro.Loss]]:
    """For every step, the share of each micro-batch in the mean loss."""

    def loss_of(x: Tensor, y: Tensor) -> micro.Loss:
        def loss(w: list[Tensor]) -> Tensor:
            named = dict(zip(pair.names, w, strict=True))
            out = torch.func.functional_call(pair.net, named, (x,))
            return F.cross_entropy(out, y, reduction="sum") / 12

        return loss

    return [[loss_of(x, y) for x, y in parts_of(k)] for k in range(STEPS)]


def train(pair: Pair, optimizer: SAM) -> None:
    for k in range(STEPS):
        optimizer.zero_grad()
        for x, y in parts_of(k):
            for _ in optimizer.probes(accumulate=True):
                (F.cross_entropy(pair.net(x), y, reduction="sum") / 12).backward()
        optimizer.step()


KEPT: list[tuple[str, dict[str, Any], str]] = [
    ("friendly_sam", {}, "sam_friend"),
    ("vasso", {"theta": 0.9}, "sam_smooth"),
    ("stale_sam", {}, "sam_stale"),
    ("alternating_sam", {}, "sam_first"),
    ("looksam", {"k": 3, "alpha": 0.7}, "sam_look"),
]


@pytest.mark.parametrize(
    ("name", "options", "kept"), [pytest.param(*one, id=one[0]) for one in KEPT]
)
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_micro_batches_equal_their_formula(
    name: str, options: dict[str, Any], kept: str, kind: str
) -> None:
    pair = Pair(kind, rho=RHO, lr=0.05 if kind == "sgd" else 0.01)
    train(pair, getattr(methods, name)(pair.base, pair.net, rho=RHO, **options))
    formula: Callable[..., Any] = getattr(micro, name)
    w, memory = formula(references(pair), pair.start, pair.reference, RHO)
    pair.check(w, {kept: memory})


def test_numbers_of_micro_batches_equal_their_formula() -> None:
    pair = Pair(rho=RHO)
    train(pair, methods.ae_sam(pair.base, pair.net, rho=RHO, steps=STEPS))
    w, numbers = micro.ae_sam(references(pair), pair.start, pair.reference, RHO)
    close(list(pair.net.parameters()), w)
    group = pair.base.param_groups[0]
    assert (group["sam_steep_mean"], group["sam_steep_var"]) == pytest.approx(numbers)


#: Methods that carry something on from step to step.
CARRY = [
    name
    for name in NAMES
    if TRAITS[name].adds_up and (TRAITS[name].remembers or TRAITS[name].notes)
]


def pieces(step: int) -> list[Batch]:
    x, y = data_of(step)
    return [(x[:6], y[:6]), (x[6:], y[6:])]


def start() -> nn.Module:
    torch.manual_seed(0)
    return net()


def accumulate(optimizer: SAM, model: nn.Module, data: Batch) -> None:
    for probe in optimizer.probes(accumulate=True):
        answer(probe, model, data, 0.5)


def trained(name: str, order: int) -> tuple[nn.Module, SAM]:
    """Seven steps over two micro-batches each, in this order."""
    model = start()
    optimizer = built(name, model)
    for step in range(7):
        optimizer.zero_grad()
        for data in pieces(step)[::order]:
            accumulate(optimizer, model, data)
        optimizer.step()
    return model, optimizer


# The mask of sparse SAM is made of the examples that come first.
@pytest.mark.parametrize("name", [name for name in CARRY if name != "sparse_sam"])
def test_the_order_of_micro_batches_does_not_matter(name: str) -> None:
    (model, optimizer), (twin, other) = trained(name, 1), trained(name, -1)
    close(list(twin.parameters()), [p.detach() for p in model.parameters()])
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        names = [key for key in optimizer.state[p] if key.startswith("sam_")]
        mine = [optimizer.state[p][key] for key in names]
        torch.testing.assert_close(
            [other.state[q][key] for key in names], mine, rtol=1e-9, atol=1e-12
        )


def test_of_masks_that_of_the_first_examples_is_kept() -> None:
    """With three pairs, the first micro-batch has all of them."""
    masks: list[list[Tensor]] = []
    for parts in ([data_of(0)], pieces(0)):
        model = start()
        optimizer = built("sparse_sam", model)
        optimizer.zero_grad()
        for data in parts:
            accumulate(optimizer, model, data)
        optimizer.step()
        masks.append([optimizer.state[p]["sam_mask"] for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))


class Broken(nn.Module):
    """A net, and a parameter that begins to train when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()
        self.extra = nn.Parameter(torch.zeros(3).double(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.extra


def fail(optimizer: SAM, model: Broken) -> None:
    for probe in optimizer.probes(accumulate=True):
        model.extra.requires_grad_(True)
        answer(probe, model, data_of(9), 0.5)


@pytest.mark.parametrize("name", [*CARRY, "wsam"])
def test_a_loop_that_fails_at_its_end_carries_nothing_on(name: str) -> None:
    model = Broken()
    optimizer = built(name, model)
    twin, other = copy.deepcopy((model, optimizer))
    for step in range(4):
        first, last = pieces(step)
        optimizer.zero_grad()
        accumulate(optimizer, model, first)
        with pytest.raises(RuntimeError, match="began to train"):
            fail(optimizer, model)
        model.extra.requires_grad_(False)
        accumulate(optimizer, model, last)
        optimizer.step()
        other.zero_grad()
        for data in (first, last):
            accumulate(other, twin, data)
        other.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", ["friendly_sam", "wsam"])
def test_weights_that_thaw_between_the_loops_of_a_step_are_refused(name: str) -> None:
    model = Broken()
    optimizer = built(name, model)
    first, last = pieces(0)
    accumulate(optimizer, model, first)
    model.extra.requires_grad_(True)
    with pytest.raises(RuntimeError, match="frozen or thawed between the accumulating"):
        accumulate(optimizer, model, last)
    model.extra.requires_grad_(False)
    accumulate(optimizer, model, last)
    optimizer.step()


def test_without_memory_they_may_thaw_and_freeze_in_turn() -> None:
    model = Broken()
    optimizer = built("sam", model)
    accumulate(optimizer, model, pieces(0)[0])
    model.requires_grad_(False)
    model.extra.requires_grad_(True)
    accumulate(optimizer, model, pieces(0)[1])
    start = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    assert not any(map(torch.equal, model.parameters(), start))


def test_the_mean_is_exact_where_all_keep_the_same() -> None:
    value = torch.rand(100)
    carried = Carried()
    for _ in range(7):
        carried.add(Carried(kept={"slow": [value, None]}, noted={"block": 0.1}))
    assert carried.noted == {"block": 0.1}
    kept, missing = carried.kept["slow"]
    assert kept is not None
    assert torch.equal(kept, value)
    assert missing is None


@pytest.mark.parametrize("order", [1, -1])
def test_in_the_mean_a_missing_entry_is_zero(order: int) -> None:
    carried = Carried()
    for value in [torch.tensor(3.0), None, torch.tensor(6.0)][::order]:
        carried.add(Carried(kept={"first": [value]}))
    assert carried.kept == {"first": [torch.tensor(3.0)]}


def test_a_memory_outside_of_an_optimizer_has_no_earlier_loops() -> None:
    memory = Memory()
    memory.keep("mask", [torch.ones(1)])
    assert memory.of_this_step("mask") is None

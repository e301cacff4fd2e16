"""Layers, dtypes and devices with something of their own, against the reference."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin import SAM
from flatmin.core import Ask, Point, Program, Step
from tests.problems import (
    Scripted,
    Tied,
    assert_same,
    batch,
    gradient,
    loss_of,
    mlp,
    passes,
    sam_steps,
    snapshot,
    tensors,
    three_at_w,
    untouched,
)
from tests.reference.loop import sam_loop

DATA = batch(torch.float64)
RHO = 0.3
every_p = pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


def sam(model: nn.Module, p: float = 2.0) -> SAM:
    return SAM(sgd(model), model, rho=RHO, p=p)


# Layers.


class Recurrent(nn.Module):
    """Reads the 6 features as a sequence of 3 pairs."""

    def __init__(self, kind: Callable[..., nn.RNNBase], dropout: float = 0.0) -> None:
        super().__init__()
        self.body = kind(2, 5, num_layers=2, bidirectional=True, dropout=dropout)
        self.head = nn.Linear(10, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.body(x.view(-1, 3, 2).transpose(0, 1))
        return self.head(out[-1])


class Attending(nn.Module):
    """The first half of the keys are padding in every second example."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.MultiheadAttention(2, 2, batch_first=True, bias=True)
        self.head = nn.Linear(6, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 3, 2)
        padding = torch.zeros(x.shape[:2], dtype=torch.bool)
        padding[::2, 0] = True
        out, _ = self.body(x, x, x, key_padding_mask=padding)
        return self.head(out.flatten(1))


class Bag(nn.Module):
    """Reads the signs of the features as 6 of 5 words, of which word 0 is padding."""

    def __init__(self, max_norm: float | None = None) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(5, 4, max_norm, mode="sum", padding_idx=0)
        self.head = nn.Linear(4, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bag(x.abs().mul(2).long().clamp(max=4)))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "rnn": lambda: Recurrent(nn.RNN),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "attention": Attending,
    "bag": Bag,
    "tied": lambda: Tied().double(),
}


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_a_layer_trains_as_the_reference(build: Callable[[], nn.Module]) -> None:
    model = build()
    twin = copy.deepcopy(model)
    sam_loop(twin, sgd(twin), lambda: loss_of(twin, DATA), steps=5, rho=RHO)
    optimizer = sam(model)
    for _ in range(5):
        with untouched(model):
            passes(optimizer, model, DATA)
        optimizer.step()
    for p, t in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, t, rtol=1e-12, atol=1e-13)


def test_dropout_between_recurrent_layers_is_the_same_in_both_passes() -> None:
    model, seen = Recurrent(nn.LSTM, dropout=0.5), []
    optimizer = SAM(sgd(model), model, rho=1e-12)
    for _ in optimizer.probes():
        loss = loss_of(model, DATA)
        loss.backward()
        seen.append(loss.item())
    assert seen[0] == pytest.approx(seen[1], abs=1e-10)
    assert abs(loss_of(model, DATA).item() - seen[0]) > 1e-6


@every_p
@pytest.mark.parametrize("base", [sgd, adamw])
def test_the_padding_row_stays_zero(
    base: Callable[[nn.Module], torch.optim.Optimizer], p: float
) -> None:
    model = Bag()
    optimizer = SAM(base(model), model, rho=RHO, p=p)
    before = snapshot(model)["bag.weight"]
    for _ in range(5):
        for _ in optimizer.probes():
            assert not snapshot(model)["bag.weight"][0].any()
            loss_of(model, DATA).backward()
        optimizer.step()
    after = snapshot(model)["bag.weight"]
    assert not after[0].any()
    assert (after[1:] != before[1:]).all()


def test_what_a_forward_pass_does_to_weights_it_does_once() -> None:
    # max_norm shortens the rows in use, in place.
    model = Bag(max_norm=0.5)
    twin = copy.deepcopy(model)
    assert (snapshot(model)["bag.weight"].norm(dim=1) > 0.5).any()
    loss_of(twin, DATA)
    passes(sam(model), model, DATA)
    assert_same(tensors(model), tensors(twin))


class Shrinking(nn.Linear):
    """Halves its weights in place, in every pass."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.mul_(0.5)
        return super().forward(input)


def test_every_later_pass_begins_where_the_first_one_left_the_weights() -> None:
    model = Shrinking(6, 3).double()
    first, last = model.weight.detach() / 2, model.weight.detach() / 4
    optimizer = SAM(sgd(model), model, method=Scripted(three_at_w))
    found: list[Tensor] = []
    for _ in optimizer.probes():
        loss_of(model, DATA).backward()
        found.append(model.weight.detach().clone())
    for w, expected in zip(found, [first, last, last], strict=True):
        assert torch.equal(w, expected)
    assert torch.equal(model.weight, first)


def test_what_a_forward_pass_does_to_weights_it_does_once_in_every_step() -> None:
    model = Shrinking(6, 3).double()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.0), model)
    first, place = model.weight.detach().clone(), model.weight.data_ptr()
    sam_steps(optimizer, model, DATA, 3)
    assert torch.equal(model.weight, first / 8)
    assert model.weight.data_ptr() == place


def test_a_weight_that_moved_in_the_step_before_may_stay_in_this_one() -> None:
    def program(step: Step) -> Program:
        yield Ask()
        away = (torch.zeros_like(step.w[0]), None)
        return (yield Ask(Point(away) if step.index == 0 else None))

    model = Shrinking(6, 3).double()
    base = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer = SAM(base, model, method=Scripted(program))
    first = model.weight.detach().clone()
    sam_steps(optimizer, model, DATA, 2)
    assert torch.equal(model.weight, first / 4)


# Layers that are frozen for a while.


@pytest.mark.parametrize("base", [sgd, adamw])
@pytest.mark.parametrize("layer", ["0", "2"])
def test_a_layer_frozen_between_steps_rests_and_moves_again(
    layer: str, base: Callable[[nn.Module], torch.optim.Optimizer]
) -> None:
    model = mlp()
    chosen = model.get_submodule(layer)
    optimizer = SAM(base(model), model, rho=RHO)
    for trains in (True, False, True):
        chosen.requires_grad_(trains)
        before = snapshot(chosen)
        for _ in range(3):
            for probe in optimizer.probes():
                moved = not torch.equal(snapshot(chosen)["weight"], before["weight"])
                assert moved or not (trains and probe.perturbed)
                loss_of(model, DATA).backward()
            optimizer.step()
            if not trains:
                assert_same(snapshot(chosen), before)
        for name, w in snapshot(chosen).items():
            assert torch.equal(w, before[name]) == (not trains)


def test_steps_with_a_frozen_layer_are_those_of_the_rest() -> None:
    model = mlp()
    twin = copy.deepcopy(model)
    for each in (model, twin):
        each.get_submodule("0").requires_grad_(False)
    sam_loop(twin, sgd(twin), lambda: loss_of(twin, DATA), steps=5, rho=RHO)
    sam_steps(sam(model), model, DATA, 5)
    for p, t in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, t, rtol=1e-12, atol=1e-13)


def test_a_layer_frozen_between_passes_is_restored() -> None:
    model = mlp()
    optimizer, chosen = sam(model), model.get_submodule("0")
    before = snapshot(model)
    with untouched(model):
        for probe in optimizer.probes():
            chosen.requires_grad_(not probe.perturbed)
            moved = not torch.equal(snapshot(chosen)["weight"], before["0.weight"])
            assert moved == probe.perturbed
            loss_of(model, DATA).backward()
    chosen.requires_grad_(True)
    optimizer.zero_grad()
    with untouched(model):
        passes(optimizer, model, DATA)


# Devices and dtypes.


class Partly(nn.Module):
    """A layer and its buffers that exist as a plan only."""

    def __init__(self) -> None:
        super().__init__()
        self.used = mlp()
        self.planned = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).to("meta")

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@every_p
def test_a_layer_on_the_meta_device_that_is_not_used_changes_nothing(p: float) -> None:
    model = Partly()
    twin = copy.deepcopy(model.used)
    optimizer = SAM(sgd(model), model, rho=RHO, p=p, track=True)
    sam_steps(optimizer, model, DATA, 3)
    sam_steps(sam(twin, p), twin, DATA, 3)
    assert_same(tensors(model.used), tensors(twin))
    assert all(t.is_meta for t in tensors(model.planned).values())


class Mixture(nn.Module):
    """A linear loss whose gradients are 2, 1 and 4, of squared length 64 together."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        self.b = nn.Parameter(torch.zeros(16, dtype=torch.float32))
        self.c = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))

    def forward(self) -> Tensor:
        parts = [2 * self.a.sum(), self.b.sum().double(), 4 * self.c.double().sum()]
        return torch.stack(parts).sum()


def test_the_norm_is_that_over_all_dtypes() -> None:
    model = Mixture()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.5), model, rho=0.5)
    for probe in optimizer.probes():
        if probe.perturbed:
            # rho g / ||g|| = g / 16, which every dtype can represent.
            # The length is rounded otherwise from one processor to the next.
            assert model.a.tolist() == pytest.approx([2 / 16] * 4, rel=1e-15)
            assert model.b.tolist() == [1 / 16] * 16
            assert model.c.tolist() == [4 / 16] * 2
            squares = [p.detach().double().square().sum() for p in model.parameters()]
            total = torch.stack(squares).sum().item()
            assert total == pytest.approx(0.5**2, rel=1e-14)
        model().backward()
    optimizer.step()
    length = optimizer.statistics.grad_norm
    assert length is not None
    assert length.item() == pytest.approx(8, rel=1e-14)
    assert [p.unique().tolist() for p in model.parameters()] == [[-1], [-0.5], [-2]]
    assert [p.dtype.itemsize for p in model.parameters()] == [8, 4, 2]


@pytest.mark.parametrize("p", [1.0, math.inf])
def test_every_ball_is_that_over_all_dtypes(p: float) -> None:
    model = Mixture()
    optimizer = SAM(sgd(model), model, rho=0.5, p=p)
    for probe in optimizer.probes():
        if probe.perturbed:
            values = [t.unique().tolist() for t in model.parameters()]
            # The largest gradient takes all, in two equal parts; or all take all.
            assert values == ([[0], [0], [0.25]] if p == 1 else [[0.5]] * 3)
        model().backward()


class Stack(nn.Module):
    """Layers of 64, 32 and 16 bits, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8, dtype=torch.float64)
        self.second = nn.Linear(8, 8, dtype=torch.float32)
        self.third = nn.Linear(8, 3, dtype=torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x)).float()
        return F.tanh(self.third(torch.tanh(self.second(x)).bfloat16())).double()


def test_layers_of_three_dtypes_climb_along_one_direction() -> None:
    model = Stack()
    w = {name: t.double() for name, t in snapshot(model).items()}
    g: dict[str, Tensor] = {}
    with untouched(model):
        for probe in sam(model).probes():
            if probe.perturbed:
                length = torch.cat([t.flatten() for t in g.values()]).norm()
                for name, p in model.named_parameters():
                    expected = w[name] + RHO * g[name] / length
                    # Up or down: bfloat16 may go to either neighbour.
                    step = torch.finfo(p.dtype).eps
                    torch.testing.assert_close(
                        p.detach().double(), expected, rtol=step, atol=step / 10
                    )
            loss_of(model, DATA).backward()
            g = {name: gradient(p).double() for name, p in model.named_parameters()}
            assert all(gradient(p).dtype == p.dtype for p in model.parameters())

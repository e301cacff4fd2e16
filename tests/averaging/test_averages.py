"""Averages equal torch's, and straight-line means; the model is only borrowed."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, update_bn

from flatmin.averaging import EMA, LAWA, SWA, Average
from flatmin.diagnostics import Objective, sharpness
from tests.averaging.trained import (
    copies,
    equal,
    network,
    sam,
    seen_in,
    step,
    stream,
    train,
)

KINDS: list[Callable[[nn.Module], Average]] = [
    lambda model: EMA(model, 0.9),
    SWA,
    lambda model: LAWA(model, 3),
]
each = pytest.mark.parametrize("kind", KINDS, ids=["EMA", "SWA", "LAWA"])


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-13, atol=1e-15)


class Torch(AveragedModel):
    """torch's average with the call of ours."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model, **options)
        self.mine = [model]

    def update(self) -> None:
        self.update_parameters(self.mine[0])


def test_ema_is_that_of_torch() -> None:
    model = network()
    mine = EMA(model, 0.9)
    theirs = Torch(model, avg_fn=get_ema_avg_fn(0.9), use_buffers=True)
    train(model, [mine, theirs])
    wanted = copies(theirs.module)
    # torch averages the count of batches too.
    count = "1.num_batches_tracked"
    wanted[count] = model.state_dict()[count]
    close(seen_in(mine), wanted)


def test_swa_is_that_of_torch_with_statistics_of_its_own() -> None:
    model = network()
    mine, theirs = SWA(model), Torch(model)
    train(model, [mine, theirs])
    torch.manual_seed(9)
    mine.refresh(stream(4))
    torch.manual_seed(9)
    update_bn(stream(4), theirs)
    close(seen_in(mine), copies(theirs.module))


def test_lawa_is_the_mean_of_the_last_weights() -> None:
    model = nn.Linear(5, 3, dtype=torch.float64)
    average = LAWA(model, 3)
    last = train(model, [average])[-3:]
    means = {name: torch.stack([w[name] for w in last]).mean(0) for name in last[0]}
    close(seen_in(average), means)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_ema_is_its_formula(decay: float) -> None:
    model = nn.Linear(5, 3, dtype=torch.float64)
    average = EMA(model, decay)
    mean, *others = train(model, [average])
    for w in others:
        mean = {name: decay * m + (1 - decay) * w[name] for name, m in mean.items()}
    close(seen_in(average), mean)


@each
def test_the_training_does_not_notice(kind: Callable[[nn.Module], Average]) -> None:
    alone = train(network(), [])[-1]
    model = network()
    average = kind(model)
    optimizer = sam(model)
    for batch in stream(7):
        step(optimizer, model, batch)
        average.update()
        average.refresh([batch])
        model.eval()
        with average.applied():
            model(batch[0])
        model.train()
    assert equal(copies(model), alone)


@each
def test_weights_come_back_in_place(kind: Callable[[nn.Module], Average]) -> None:
    model = network()
    average = kind(model)
    train(model, [average])
    average.refresh(stream(2))
    before, places = copies(model), [p.data_ptr() for p in model.parameters()]
    with suppress(KeyError), average.applied():
        assert not equal(copies(model), before)
        model(stream(1)[0][0])
        raise KeyError
    assert equal(copies(model), before)
    assert places == [p.data_ptr() for p in model.parameters()]


@each
def test_saved_and_loaded_is_never_stopped(
    kind: Callable[[nn.Module], Average],
) -> None:
    model = network()
    whole = kind(model)
    first = kind(model)
    optimizer = sam(model)
    for k, batch in enumerate(stream(8)):
        step(optimizer, model, batch)
        whole.update()
        if k == 4:
            first = reloaded(first, kind(model))
        first.update()
    for average in (whole, first):
        torch.manual_seed(1)
        average.refresh(stream(2))
    first = reloaded(first, kind(model))
    assert first.updates == 8
    assert equal(seen_in(first), seen_in(whole))


def reloaded(old: Average, new: Average) -> Average:
    file = io.BytesIO()
    torch.save(old.state_dict(), file)
    file.seek(0)
    new.load_state_dict(torch.load(file, weights_only=True))
    return new


def test_a_loaded_average_shares_no_memory_with_the_state() -> None:
    model = network()
    old, new = EMA(model, 0.5), EMA(model, 0.5)
    train(model, [old], 2)
    new.load_state_dict(old.state_dict())
    held = seen_in(new)
    train(model, [old], 2)
    assert equal(seen_in(new), held)


@each
def test_a_state_from_elsewhere_is_taken_to_where_the_model_is(
    kind: Callable[[nn.Module], Average],
) -> None:
    model = network()
    old = kind(model)
    train(model, [old], 2)
    old.refresh(stream(2))
    elsewhere = kind(network().to("meta"))
    elsewhere.load_state_dict(old.state_dict())
    loaded = elsewhere.state_dict()
    kept = [loaded["statistics"], *loaded.get("latest", [loaded.get("average")])]
    assert {t.device.type for named in kept for t in named.values()} == {"meta"}


def test_transfer_at_the_end_of_every_epoch_is_the_switching_average() -> None:
    model, by_hand = (nn.Linear(5, 3, dtype=torch.float64) for _ in range(2))
    by_hand.load_state_dict(model.state_dict())
    average, optimizer = EMA(model, 0.8), SGD(model.parameters(), lr=0.1, momentum=0.9)
    theirs = SGD(by_hand.parameters(), lr=0.1, momentum=0.9)
    mean: dict[str, Tensor] = {}
    for k, (x, y) in enumerate(stream(6)):
        for net, base in ((model, optimizer), (by_hand, theirs)):
            base.zero_grad()
            F.cross_entropy(net(x), y).backward()
            base.step()
        average.update()
        w = copies(by_hand)
        mean = {n: 0.8 * mean[n] + 0.2 * w[n] for n in w} if mean else w
        if k % 3 == 2:
            average.transfer()
            by_hand.load_state_dict(mean)
    close(copies(model), copies(by_hand))


def test_small_moves_of_narrow_weights_are_not_rounded_away() -> None:
    model = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    average = EMA(model, 0.999)
    nn.init.ones_(model.weight)
    average.update()
    nn.init.constant_(model.weight, 2.0)
    for _ in range(3000):
        average.update()
    with average.applied():
        assert model.weight.item() == pytest.approx(2 - 0.999**3000, abs=0.01)


@each
def test_an_average_follows_the_model_to_a_wider_type(
    kind: Callable[[nn.Module], Average],
) -> None:
    models = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    averages = [kind(model) for model in models]
    models[1].double()
    for k, move in enumerate((0, 1e-12, 1e-12)):
        if k:
            models[0].double()
        for model, average in zip(models, averages, strict=True):
            with torch.no_grad():
                model.weight.fill_(1 + move)
            average.update()
    means = [seen_in(average)["weight"] for average in averages]
    assert means[0].dtype == torch.float64
    assert 1 < means[0] < 1 + 1e-12
    torch.testing.assert_close(means[0], means[1], rtol=1e-15, atol=0)


@each
def test_a_buffer_that_becomes_a_fraction_is_averaged(
    kind: Callable[[nn.Module], Average],
) -> None:
    model = nn.Linear(1, 1)
    model.register_buffer("scale", torch.tensor(2))
    average = kind(model)
    average.update()
    model.scale = torch.tensor(0.5)
    average.update()
    with average.applied():
        assert 0.5 < model.scale.item() < 2


@each
def test_an_average_follows_the_model_to_another_device(
    kind: Callable[[nn.Module], Average],
) -> None:
    model = nn.Linear(2, 2)
    average = kind(model)
    average.update()
    model.to("meta")
    average.update()
    average.transfer()
    assert average.updates == 2


def test_refresh_leaves_modes_streams_and_buffers() -> None:
    model = network()
    average = SWA(model)
    train(model, [average], 3)
    model.eval()
    model[3].train()
    before, draws = copies(model), torch.get_rng_state()
    average.refresh(stream(2))
    assert equal(copies(model), before)
    assert torch.equal(torch.get_rng_state(), draws)
    assert [m.training for m in model] == [False, False, False, True, False]


def test_sharpness_of_the_average_is_measured_in_the_block() -> None:
    model = network()
    average, batches = EMA(model), stream(2)
    train(model, [average], 2)
    alone = copy.deepcopy(model)
    with average.applied():
        alone.load_state_dict(model.state_dict())
        within = sharpness(Objective(model.eval(), F.cross_entropy, batches))
    apart = sharpness(Objective(alone.eval(), F.cross_entropy, batches))
    assert float(within) == float(apart) > 0


def test_weights_that_are_not_numbers_are_lent_too() -> None:
    model = nn.Linear(5, 3)
    average = EMA(model)
    nn.init.constant_(model.weight, torch.nan)
    average.update()
    with torch.no_grad(), average.applied():
        model.weight += 0


class Masked(nn.Module):
    """Attention with a causal mask of -inf, as a buffer or as a frozen parameter."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4).double()
        mask = torch.full((4, 4), -torch.inf).triu(1)
        if frozen:
            self.mask = nn.Parameter(mask, requires_grad=False)
        else:
            self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return (self.layer(x) + self.mask).softmax(1)


@each
@pytest.mark.parametrize("frozen", [False, True])
def test_a_mask_of_infinities_stays(
    kind: Callable[[nn.Module], Average], frozen: bool
) -> None:
    model = Masked(frozen)
    average = kind(model)
    then = model.mask.detach().clone()
    for _ in range(4):
        average.update()
    with average.applied():
        assert torch.equal(model.mask, then)
        assert model(torch.ones(4, 4).double())[0].tolist() == [1, 0, 0, 0]
    # An entry that is finite again takes its new value.
    model.mask.data.zero_()
    average.update()
    average.update()
    with average.applied():
        assert model.mask.isfinite().all()


def test_tied_weights_are_averaged_once() -> None:
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    average = SWA(model)
    average.update()
    nn.init.zeros_(first.weight)
    average.update()
    half = seen_in(average)["0.weight"]
    assert half.abs().max() > 0
    with average.applied():
        assert first.weight is second.weight


def test_complex_weights_are_averaged() -> None:
    model = nn.Module()
    model.w = nn.Parameter(torch.tensor([1 + 2j]))
    average = SWA(model)
    average.update()
    with torch.no_grad():
        model.w.copy_(torch.tensor([3 + 0j]))
    average.update()
    assert seen_in(average)["w"].item() == 2 + 1j


@each
def test_of_a_sparse_buffer_the_latest_is_kept(
    kind: Callable[[nn.Module], Average],
) -> None:
    model = nn.Linear(3, 2)
    model.register_buffer("edges", torch.eye(3).to_sparse())
    average = kind(model)
    average.update()
    model.edges = (2 * torch.eye(3)).to_sparse()
    average.update()
    with average.applied():
        assert torch.equal(model.edges.to_dense(), 2 * torch.eye(3))

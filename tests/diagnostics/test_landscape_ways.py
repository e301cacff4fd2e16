"""However many points at a time: the losses are those of the loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin.diagnostics import Objective, _grid, landscape
from flatmin.diagnostics.landscape import axis
from tests.diagnostics.small import (
    WAYS,
    by_hand,
    convnet,
    dense,
    four_threads,
    images,
    images_flat,
    losses,
    pictures,
    same,
    two,
)
from tests.problems import batch, mlp, snapshot, untouched


@pytest.mark.parametrize("make", [dense, pictures], ids=["dense", "convnet"])
@pytest.mark.parametrize("how", [*WAYS, "auto"])
def test_every_way_equals_the_loop_by_hand(
    how: Any, make: Callable[[], Objective]
) -> None:
    objective = make()
    u, v = two(objective)
    with four_threads():
        plane = landscape.plane(objective, u, v, a=axis(5), how=how)
    same(losses(plane), by_hand(objective, u, v, axis(5)))


def way_of(objective: Objective, recalibrate: bool = False) -> str:
    grid = _grid.Grid(objective, two(objective), recalibrate, 2**30)
    with grid.way("auto", [(1.0, 1.0)]) as way:
        return way.name


def test_dense_models_are_stacked_and_convolutions_have_threads() -> None:
    assert way_of(dense()) == "stacked"
    assert way_of(pictures()) == "threads"
    assert way_of(dense(), recalibrate=True) == "threads"


def test_a_model_that_needs_its_channels_in_front_keeps_its_threads() -> None:
    objective = pictures(view=True)
    u, v = two(objective)
    assert way_of(objective) == "threads"
    plane = landscape.plane(objective, u, v, a=axis(3), how="threads")
    same(losses(plane), by_hand(objective, u, v, axis(3)))


def test_a_small_memory_leaves_the_loop_or_smaller_stacks() -> None:
    objective = dense()
    u, v = two(objective)
    size = sum(p.nbytes for p in objective.w)
    data = sum(t.nbytes for pair in images_flat(20) for t in pair)
    for memory in (1, data + 1, 7 * size):
        plane = landscape.plane(objective, u, v, a=axis(3), memory=memory)
        same(losses(plane), by_hand(objective, u, v, axis(3)))
    with pytest.raises(ValueError, match="how='stacked' does not give"):
        landscape.line(objective, u, how="stacked", memory=1)
    many = Objective(mlp(), cross_entropy, [(x[:2], y[:2]) for x, y in images_flat(2)])
    with four_threads(), pytest.raises(ValueError, match="how='threads' does not give"):
        landscape.line(many, u, how="threads", memory=2 * size)


def test_data_that_does_not_fit_is_read_anew_and_stacked_all_the_same() -> None:
    x, y = batch(torch.float64, n=400)
    data = list(zip(x.split(100), y.split(100), strict=True))
    objective = Objective(mlp(), cross_entropy, data)
    u, v = two(objective)
    memory = 10 * sum(p.nbytes for p in objective.w)
    assert memory < sum(t.nbytes for pair in data for t in pair)
    plane = landscape.plane(objective, u, v, a=axis(3), how="stacked", memory=memory)
    same(losses(plane), by_hand(objective, u, v, axis(3)))
    with pytest.raises(ValueError, match="how='threads'"):
        landscape.line(objective, u, how="threads", memory=memory)


def test_a_forward_that_has_the_model_from_elsewhere_is_noticed() -> None:
    model = convnet()
    objective = Objective(
        model,
        cross_entropy,
        images(),
        forward=lambda _, pair: (model(pair[0]), pair[1]),
    )
    u, v = two(objective)
    expected = by_hand(pictures(), u, v, axis(3))
    same(losses(landscape.plane(objective, u, v, a=axis(3))), expected)
    with pytest.raises(ValueError, match="how='threads'"):
        landscape.plane(objective, u, v, a=axis(3), how="threads")


class Branching(nn.Module):
    """What `vmap` refuses: a decision that depends on the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        return out if self.layer.weight.sum() > 0 else -out


def test_what_vmap_refuses_is_done_another_way() -> None:
    objective = Objective(Branching(), cross_entropy, [batch(torch.float64)])
    u, v = two(objective)
    assert way_of(objective) == "threads"
    plane = landscape.plane(objective, u, v, a=axis(3))
    same(losses(plane), by_hand(objective, u, v, axis(3)))


DTYPES = (torch.int64, torch.uint8)


@pytest.mark.parametrize(
    "data",
    [
        [{"x": x, "y": y, "n": 8} for x, y in images(16)],
        [{"x": x, "y": y, "w": torch.ones(3)} for x, y in images()],
        [{"x": x, "y": y, str(k): y} for k, (x, y) in enumerate(images())],
        [{"x": x, "y": y, "c": torch.ones(())} for x, y in images()],
        [{"x": x, "y": y.to(DTYPES[k])} for k, (x, y) in enumerate(images(16))],
    ],
    ids=["a number", "another length", "other names", "no axis", "another dtype"],
)  # fmt: skip
@pytest.mark.parametrize("how", ["stacked", "threads"])
def test_batches_that_cannot_be_cut_anew_are_kept(data: Any, how: Any) -> None:
    objective = Objective(
        convnet(),
        cross_entropy,
        data,
        forward=lambda model, batch: (model(batch["x"]), batch["y"].long()),
    )
    u, v = two(objective)
    found = landscape.plane(objective, u, v, a=axis(3), how=how)
    whole = Objective(
        convnet(), cross_entropy, [(one["x"], one["y"].long()) for one in data]
    )
    same(losses(found), by_hand(whole, u, v, axis(3)))


def test_batches_are_cut_to_what_the_cache_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The largest tensor of 8 images has 8 x 4 x 4 x 4 entries of 8 bytes.
    monkeypatch.setitem(_grid._TENSOR, "cpu", 3 * 4 * 4 * 4 * 8)
    model = convnet()
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    objective = Objective(model, cross_entropy, images())
    u, v = two(objective)
    seen.clear()
    plane = landscape.plane(objective, u, v, a=axis(2), how="threads")
    assert set(seen[-7:]) == {3, 2}
    same(losses(plane), by_hand(objective, u, v, axis(2)))


@pytest.mark.parametrize("recalibrate", [False, True])
@pytest.mark.parametrize("how", WAYS)
def test_nothing_is_touched(how: Any, recalibrate: bool) -> None:
    if how == "stacked" and recalibrate:
        how = "auto"
    objective = pictures()
    u, v = two(objective)
    model = objective.model
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before, stream = snapshot(model), torch.get_rng_state()
    modes = [m.training for m in model.modules()]
    with untouched(model), four_threads():
        landscape.plane(objective, u, v, a=axis(3), how=how, recalibrate=recalibrate)
    after = snapshot(model)
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    assert torch.equal(torch.get_rng_state(), stream)
    assert [m.training for m in model.modules()] == modes
    assert all(
        bool((p.grad == 1).all()) for p in model.parameters() if p.grad is not None
    )
    assert model[1].momentum == 0.1  # pyright: ignore


@pytest.mark.parametrize("recalibrate", [False, True])
@pytest.mark.parametrize("how", ["loop", "threads"])
def test_nothing_is_touched_after_an_exception(how: Any, recalibrate: bool) -> None:
    passes = 0

    def criterion(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        if passes > 60:
            raise RuntimeError("enough")
        return cross_entropy(outputs, targets)

    objective = Objective(convnet(), criterion, images())
    u, v = two(objective)
    model = objective.model
    before, threads = snapshot(model), threading.active_count()
    with untouched(model), pytest.raises(RuntimeError, match="enough"), four_threads():
        landscape.plane(objective, u, v, how=how, recalibrate=recalibrate)
    after = snapshot(model)
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    assert not any(m.training for m in model.modules())
    assert model[1].momentum == 0.1  # pyright: ignore
    assert threading.active_count() == threads

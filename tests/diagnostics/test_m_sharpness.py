"""m-sharpness against a straight loop over its groups."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.core import LpBall, PerLayer, TwoPoint, scales
from flatmin.diagnostics import Objective, m_sharpness, sharpness
from tests.diagnostics.problems import (
    batches,
    classifier,
    loss_of_weights,
    no_trace,
    weights,
)
from tests.problems import Noisy, Odd, Tied, mlp, untouched
from tests.reference import sharpness as reference

RHO = 0.3

#: Where the module keeps how much may be in memory at once.
ENTRIES = "flatmin.diagnostics._m_sharpness._ENTRIES"


class Branching(nn.Module):
    """Looks at its input, which vmap cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if x.sum() > 0 else 2 * self.inner(x)


def odd() -> nn.Module:
    return Odd().double()


def noisy() -> nn.Module:
    return Noisy().double().eval()


def tied() -> nn.Module:
    return Tied().double()


def straight_loop(
    model: nn.Module, m: int, rho: float, within: TwoPoint | None = None, n: int = 24
) -> list[float]:
    """Each group as an objective of its own."""
    x = torch.cat([a for a, _ in batches(n)])
    y = torch.cat([b for _, b in batches(n)])
    groups = zip(x.split(m), y.split(m), strict=True)
    losses = (Objective(model, F.cross_entropy, [group]) for group in groups)
    return [sharpness(loss, rho, within=within).value for loss in losses]


@pytest.mark.parametrize("m", [1, 2, 4, 8])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0])
def test_it_is_the_mean_of_the_reference_over_groups(m: int, p: float) -> None:
    model, objective = classifier()
    x = torch.cat([a for a, _ in batches()]).split(m)
    y = torch.cat([b for _, b in batches()]).split(m)
    losses = [loss_of_weights(model, [pair]) for pair in zip(x, y, strict=True)]
    expected = reference.m_sharpness(losses, weights(model), RHO, p)
    measured = m_sharpness(objective, RHO, m, p=p)
    assert measured.value == pytest.approx(expected, rel=1e-10)
    assert (measured.groups, measured.n) == (24 // m, 24)


@pytest.mark.parametrize("m", [1, 2, 12])
@pytest.mark.parametrize("model_of", [mlp, odd, noisy, tied, Branching])
def test_many_at_once_is_one_by_one(m: int, model_of: Callable[[], nn.Module]) -> None:
    model, objective = classifier(size=12, model=model_of())
    rises = torch.tensor(straight_loop(model, m, RHO), dtype=torch.float64)
    measured = m_sharpness(objective, RHO, m)
    assert measured.value == pytest.approx(float(rises.mean()), rel=1e-10)
    error = float(rises.std() / len(rises) ** 0.5)
    assert measured.error == pytest.approx(error, rel=1e-8)


@pytest.mark.parametrize(
    "within",
    [
        TwoPoint(scale=scales.Adaptive(0.01)),
        TwoPoint(metric=PerLayer(LpBall())),
        TwoPoint(filter=lambda step, g: [None, *g[1:]]),
    ],
)
def test_the_ball_may_be_any(within: TwoPoint) -> None:
    model, objective = classifier()
    rises = straight_loop(model, 2, RHO, within)
    measured = m_sharpness(objective, RHO, 2, within=within)
    assert measured.value == pytest.approx(sum(rises) / len(rises), rel=1e-10)


def test_small_groups_take_two_passes_and_large_ones_two_each() -> None:
    model, objective = classifier(size=24)
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    model.register_forward_pre_hook(count)
    m_sharpness(objective, RHO, 1)
    assert passes == 2
    m_sharpness(objective, RHO, 12)
    assert passes == 2 + 2 * 2


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, objective = classifier()
    whole = m_sharpness(objective, RHO, 1)
    for entries in (1, 5 * sum(w.numel() for w in objective.w)):
        monkeypatch.setattr(ENTRIES, entries)
        chunked = m_sharpness(objective, RHO, 1)
        assert chunked.value == pytest.approx(whole.value, rel=1e-12)
        assert chunked.groups == whole.groups


def test_a_model_that_fails_after_some_chunks_is_done_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, objective = classifier()
    expected = m_sharpness(objective, RHO, 1).value
    monkeypatch.setattr(ENTRIES, 4 * sum(w.numel() for w in objective.w))
    calls = 0

    def refuse_once(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("vmap: no")

    model.register_forward_pre_hook(refuse_once)
    measured = m_sharpness(objective, RHO, 1)
    assert measured.groups == 24
    assert measured.value == pytest.approx(expected, rel=1e-10)


def test_one_group_of_all_examples_is_plain_sharpness() -> None:
    _, objective = classifier(size=24)
    measured = m_sharpness(objective, RHO, 24)
    assert measured.value == pytest.approx(sharpness(objective, RHO).value, rel=1e-12)
    assert measured.error is None


def test_the_rest_of_the_last_batch_is_left_out_and_not_counted() -> None:
    model, objective = classifier(n=22, size=8)
    measured = m_sharpness(objective, RHO, 4)
    assert (measured.groups, measured.n) == (5, 20)
    rises = straight_loop(model, 4, RHO, n=22)[:5]
    assert measured.value == pytest.approx(sum(rises) / 5, rel=1e-10)
    assert repr(measured).endswith(
        "(rho 0.3, p 2, m 4, 5 groups, one step each; n = 20)"
    )


def test_dictionaries_with_other_things_in_them_are_cut() -> None:
    model = mlp()
    shared = torch.ones(3).double()
    named = [{"x": x, "y": y, "shared": shared, "id": "a"} for x, y in batches()]

    def forward(module: nn.Module, one: dict[str, Any]) -> tuple[Tensor, Tensor]:
        assert one["shared"].shape == (3,)
        assert one["id"] == "a"
        return module(one["x"]) * one["shared"], one["y"]

    objective = Objective(model, F.cross_entropy, named, forward=forward)
    expected = m_sharpness(classifier(model=model)[1], RHO, 2).value
    assert m_sharpness(objective, RHO, 2).value == pytest.approx(expected, rel=1e-12)


def test_nothing_of_the_model_changes() -> None:
    for m in (1, 12):
        model, objective = classifier(size=12, model=noisy())
        with no_trace(model), untouched(model):
            m_sharpness(objective, RHO, m)


def test_nothing_has_changed_after_an_exception() -> None:
    model, objective = classifier(size=12, model=noisy())
    calls = 0

    def explode(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError("pulled the plug")

    model.register_forward_pre_hook(explode)
    with no_trace(model), untouched(model), pytest.raises(OSError, match="plug"):
        m_sharpness(objective, RHO, 12)


def test_an_m_that_does_not_divide_a_batch_is_refused() -> None:
    _, objective = classifier()
    with pytest.raises(ValueError, match=r"m = 3 does not divide the batch size 8"):
        m_sharpness(objective, RHO, 3)
    with pytest.raises(ValueError, match=r"m = 16 does not divide the batch size 8"):
        m_sharpness(objective, RHO, 16)


def test_too_few_examples_are_refused() -> None:
    _, objective = classifier(size=24)
    with pytest.raises(ValueError, match=r"no batch has m examples. Give a smaller m"):
        m_sharpness(objective, RHO, 25)


@pytest.mark.parametrize("m", [0, -1])
def test_an_impossible_m_is_refused(m: int) -> None:
    with pytest.raises(ValueError, match=f"m must be at least 1, got {m}"):
        m_sharpness(classifier()[1], RHO, m)


def test_an_m_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(TypeError, match=r"m must be a whole number, got 1.5"):
        m_sharpness(classifier()[1], RHO, 1.5)  # pyright: ignore


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    sealed = [SimpleNamespace(x=x, y=y) for x, y in batches()]
    objective = Objective(
        mlp(), F.cross_entropy, sealed, forward=lambda m, b: (m(b.x), b.y)
    )
    assert m_sharpness(objective, RHO, 8).groups == 3
    with pytest.raises(ValueError, match="a group of m = 2 examples gives 8 targets"):
        m_sharpness(objective, RHO, 2)


def test_it_grows_as_m_falls_by_the_norms_of_the_groups_gradients() -> None:
    _, objective = classifier(size=24)
    x, y = batches(24, 24)[0]
    rho, sizes, found = 1e-4, (1, 2, 4, 8, 24), list[float]()
    for m in sizes:
        norms = [
            torch.cat([t.flatten() for t in objective.gradient_of(group)[1]]).norm() / m
            for group in zip(x.split(m), y.split(m), strict=True)
        ]
        found.append(m_sharpness(objective, rho, m).value)
        slope = float(torch.stack(norms).mean())
        assert found[-1] == pytest.approx(rho * slope, rel=1e-2)
    assert found == sorted(found, reverse=True)

"""Gates and radii: in which steps, and how far."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import nn

from flatmin import SAM
from flatmin.core import (
    Gate,
    Radius,
    Step,
    TwoPoint,
    all_examples,
    fraction,
    gates,
    radii,
)
from flatmin.core.programs import FirstOrderFlat, Look, MultiStep, Steep
from tests.problems import batch, mlp, sam_steps


def step(index: int, *groups: dict[str, Any]) -> Step:
    made = [{"sam_rho": 0.1, "lr": 0.1, **group} for group in groups or ({},)]
    return Step(index=index, model=nn.Identity(), w=[], groups=made)


def opens(gate: Gate, n: int) -> list[int]:
    return [k for k in range(n) if gate(step(k))]


@pytest.mark.parametrize(
    ("k", "open_in"), [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6]), (10, [0])]
)
def test_every_kth_step_begins_with_the_first(k: int, open_in: list[int]) -> None:
    assert opens(gates.every(k), 7) == open_in


@pytest.mark.parametrize(
    ("share", "first"), [(0.07, 7), (0.125, 7), (0.5, 4), (0.99, 0), (1.0, 0)]
)
def test_the_last_part_is_open(share: float, first: int) -> None:
    assert opens(gates.last(share, 8), 8) == list(range(first, 8))
    assert gates.last(share, 8)(step(1000))


def test_the_last_mass_counts_learning_rates() -> None:
    rates = [4.0, 3.0, 2.0, 1.0]
    assert opens(gates.last_mass(1.0, rates), 4) == [0, 1, 2, 3]
    assert opens(gates.last_mass(0.3, rates), 4) == [2, 3]
    assert opens(gates.last_mass(0.29, rates), 4) == [3]
    assert opens(gates.last_mass(0.1, rates), 6) == [3, 4, 5]
    # Where all rates are alike it is the last part.
    assert opens(gates.last_mass(0.25, [0.5] * 8), 8) == opens(gates.last(0.25, 8), 8)


def test_the_last_mass_of_equal_rates_is_the_last_part() -> None:
    for steps in (10, 198, 1000):
        for rate in (0.01, 0.1, 0.3, 1e-5):
            for part in range(1, steps, 7):
                mass = gates.last_mass(part / steps, [rate] * steps)
                assert not mass(step(steps - part - 1, {"lr": rate}))
                assert mass(step(steps - part, {"lr": rate}))


def test_a_part_shorter_than_a_step_is_refused() -> None:
    for make in (
        lambda: gates.last(0.06, 8),
        lambda: gates.last_mass(1e-17, [0.1] * 10),
    ):
        with pytest.raises(ValueError, match="less than a step, so none would climb"):
            make()


def test_the_coin_depends_on_seed_and_step_alone() -> None:
    gate = gates.by_chance(0.5)
    first = opens(gate, 200)
    random.seed(5)
    state = random.getstate()
    assert [k for k in reversed(range(200)) if gates.by_chance(0.5)(step(k))] == [
        *reversed(first)
    ]
    assert random.getstate() == state
    assert first != opens(gates.by_chance(0.5, seed=1), 200)
    assert 70 < len(first) < 130


def test_a_coin_falls_as_often_as_it_should() -> None:
    for chance in (0.1, 0.3, 0.9):
        share = len(opens(gates.by_chance(chance), 20_000)) / 20_000
        assert share == pytest.approx(chance, abs=4 * math.sqrt(0.25 / 20_000))
    assert len(opens(gates.by_chance(1.0), 100)) == 100


@pytest.mark.parametrize("k", [0, -1])
def test_an_impossible_interval_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        gates.every(k)


@pytest.mark.parametrize("share", [-0.1, 0.0, 1.1, math.nan])
def test_an_impossible_share_of_steps_is_refused(share: float) -> None:
    for make in (
        lambda: gates.last(share, 10),
        lambda: gates.last_mass(share, [0.1]),
        lambda: gates.by_chance(share),
    ):
        with pytest.raises(ValueError, match=rf"in \(0, 1\], got {share}"):
            make()


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, math.nan])
def test_an_impossible_share_of_a_batch_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=rf"in \(0, 1\], got {share}"):
        fraction(share)


def at(radius: Radius, index: int, *groups: dict[str, Any]) -> list[float]:
    return radius(step(index, *groups))


TWO = ({"sam_rho": 0.1}, {"sam_rho": 0.4})


def test_times_is_a_factor_for_every_group() -> None:
    assert at(radii.times(3), 5, *TWO) == pytest.approx([0.3, 1.2])


def test_scheduled_is_a_factor_for_every_step() -> None:
    radius = radii.scheduled(lambda k: k / 10)
    assert at(radius, 5, *TWO) == pytest.approx([0.05, 0.2])


@pytest.mark.parametrize(("k", "factor"), [(0, 2.0), (5, 1.5), (10, 1.0), (100, 1.0)])
def test_linear_goes_evenly_and_stays(k: int, factor: float) -> None:
    found = at(radii.linear(2.0, 1.0, 10), k, *TWO)
    assert found == pytest.approx([0.1 * factor, 0.4 * factor])


@pytest.mark.parametrize(
    ("k", "share"),
    [(0, 0.0), (5, 0.5), (2.5, (1 - math.sqrt(0.5)) / 2), (10, 1.0), (100, 1.0)],
)
def test_cosine_goes_along_half_a_wave(k: int, share: float) -> None:
    [found] = at(radii.cosine(1.0, 3.0, 10), k)
    assert found == pytest.approx(0.1 * (1 + 2 * share))


def test_a_jump_begins_at_its_step() -> None:
    found = [at(radii.jump(2), k) for k in range(4)]
    assert found == [[0.0], [0.0], [0.1], [0.1]]


def test_the_radius_follows_each_groups_rate() -> None:
    groups = ({"lr": 0.1}, {"lr": 0.01, "sam_rho": 0.5}, {"lr": torch.tensor(0.055)})
    found = at(radii.with_rate(0.02, 0.01, 0.1), 0, *groups)
    assert found == pytest.approx([0.1, 0.02, 0.06])


@pytest.mark.parametrize(
    "make",
    [lambda: radii.linear(0.0, 1.0, 0), lambda: radii.cosine(0.0, 1.0, -3)],
    ids=["linear", "cosine"],
)
def test_a_schedule_without_steps_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="steps"):
        make()


def test_a_rate_without_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lr_max"):
        radii.with_rate(0.02, 0.1, 0.1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MultiStep(0), "k"),
        (lambda: Look(0, 0.7), "k"),
        (lambda: Steep(0, 0.9, 1.0, -1.0), "steps"),
        (lambda: Steep(10, 1.5, 1.0, -1.0), "decay"),
        (lambda: FirstOrderFlat(-0.1, 0.6, 0.5, 0.03), "slope_rho"),
    ],
    ids=["multi-step", "look", "steep-steps", "steep-decay", "flat"],
)
def test_impossible_numbers_of_a_program_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"{said}.* got"):
        make()


def test_a_negative_radius_in_a_group_is_refused() -> None:
    with pytest.raises(ValueError, match="sam_rho must be finite"):
        at(radii.times(2), 0, {"sam_rho": -1.0})


def test_a_step_without_radius_costs_one_gradient() -> None:
    model = mlp()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, method=TwoPoint(radius=radii.jump(2)))
    passes = []
    for _ in range(4):
        sam_steps(optimizer, model, batch(torch.float64), 1)
        passes.append(optimizer.statistics.passes)
    assert passes == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("share", "n", "taken"), [(0.5, 10, 5), (0.25, 10, 2), (0.01, 10, 1), (0.99, 3, 3)]
)
def test_a_fraction_is_the_first_examples(share: float, n: int, taken: int) -> None:
    assert fraction(share)(n) == slice(0, taken)
    assert all_examples(n) is None


def test_only_the_ascent_takes_a_part() -> None:
    model = mlp()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, method=TwoPoint(batch=fraction(0.25)))
    x, y = batch(torch.float64)
    sizes = []
    for probe in optimizer.probes():
        part = probe.take(x, y)
        sizes.append([len(t) for t in part])
        assert torch.equal(part[0], x[: len(part[0])])
        nn.functional.cross_entropy(model(part[0]), part[1]).backward()
    assert sizes == [[3, 3], [12, 12]]


@pytest.mark.parametrize("decay", [0.6, 0.7, 0.9, 0.99])
def test_an_average_of_one_number_is_that_number(decay: float) -> None:
    """Else rounding decides whether the first step climbs."""
    steep = Steep(steps=10, decay=decay, early=1.0, late=-1.0)
    draw = random.Random(0)
    squares = [draw.uniform(0.01, 10) for _ in range(1000)]
    assert len({steep.is_steep(step(0), square) for square in squares}) == 1


@pytest.mark.parametrize("square", [math.inf, math.nan])
def test_a_square_that_is_not_finite_is_not_steep_and_not_noted(square: float) -> None:
    steep, now = Steep(steps=10, decay=0.9, early=-9.0, late=-9.0), step(3)
    assert not steep.is_steep(now, square)
    assert now.memory.number("steep_mean") is None


def test_a_last_part_is_a_share_of_whole_steps() -> None:
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\]"):
        gates.last(1.5, 10)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        gates.last(0.5, 0)

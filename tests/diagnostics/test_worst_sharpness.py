"""The highest rise in a ball: exact where it is known, and never out of the ball."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from flatmin.core import (
    LpBall,
    PerGroup,
    PerLayer,
    TwoPoint,
    scales,
)
from flatmin.diagnostics import (
    Objective,
    sharpness,
    worst_sharpness,
)
from tests.core.balls import EVERY_P, lp_norm
from tests.diagnostics.problems import (
    ADAPTIVE,
    RHO,
    batches,
    classifier,
    loss_of_weights,
    no_bias,
    points,
    quadratic,
    regression,
    weights,
)
from tests.reference import sharpness as reference


def trust_region(a: Tensor, g: Tensor, rho: float) -> float:
    """The maximum of ``g'e + e'Ae / 2`` over ``||e||_2 <= rho``, for A > 0."""
    values, vectors = torch.linalg.eigh(a)
    c = vectors.T @ g

    def solution(shift: float) -> Tensor:
        return c / (shift - values)

    low, high = float(values[-1]), float(values[-1] + g.norm() / rho)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if solution(middle).norm() > rho else (low, middle)
    e = solution(high)
    return float(c @ e + e.square() @ values / 2)


@pytest.mark.parametrize("rho", [0.01, 0.3, 5.0])
@pytest.mark.parametrize("n", [2, 5, 20])
def test_worst_case_on_a_quadratic_is_the_trust_region_solution(
    rho: float, n: int
) -> None:
    model, objective = quadratic(n)
    exact = trust_region(model.a, model.a @ model.w.detach(), rho)
    worst = worst_sharpness(objective, rho, steps=100)
    assert worst.value <= exact * (1 + 1e-12)
    assert worst.value >= exact * (1 - 1e-6)
    assert worst.value >= sharpness(objective, rho).value


@pytest.mark.parametrize("p", [1.0, math.inf])
def test_worst_case_is_a_corner_where_the_ball_has_corners(p: float) -> None:
    model, objective = quadratic()
    w, units = model.w.detach(), torch.eye(5).double()
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=5))).double()
    corners = RHO * (torch.cat([units, -units]) if p == 1 else signs)
    heights = [float(model.loss(w + e) - model.loss(w)) for e in corners]
    worst = worst_sharpness(objective, RHO, p=p).value
    # Every corner is a local maximum of a convex function over the l_1 ball.
    assert min(abs(worst - height) for height in heights) < 1e-12
    assert worst == pytest.approx(max(heights), rel=1e-9 if math.isinf(p) else 0.05)


@pytest.mark.parametrize("p", EVERY_P)
@pytest.mark.parametrize("step_size", [None, 0.05, 3.0])
def test_an_ascent_never_leaves_the_ball_and_never_falls(
    p: float, step_size: float | None
) -> None:
    _, objective = quadratic()
    with points(objective) as seen:
        worst = worst_sharpness(objective, RHO, p=p, step_size=step_size, steps=10)
    assert all(lp_norm(eps, p) <= RHO * (1 + 1e-9) for eps in seen)
    assert worst.history[0] == pytest.approx(sharpness(objective, RHO, p=p).value)
    assert worst.value == max(worst.history)
    assert len(worst.history) == 11


def test_an_ascent_keeps_the_highest_point_where_a_step_goes_down() -> None:
    model = nn.ParameterList([torch.tensor([0.1, 0.2, -0.3]).double()])

    def forward(_: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + torch.sin(5 * model[0]).sum(), x

    data = [torch.zeros(2).double()]
    objective = Objective(model, lambda out, _: out.mean(), data, forward=forward)
    worst = worst_sharpness(objective, 1.0, steps=12)
    steps = itertools.pairwise(worst.history)
    assert any(after < before for before, after in steps)
    assert worst.value == max(worst.history)
    # The top of each wave is within the ball.
    start = torch.sin(5 * model[0]).sum().item()
    assert worst.value == pytest.approx(3 - start, rel=1e-3)


@pytest.mark.parametrize("p", [2.0, math.inf])
@pytest.mark.parametrize("adaptive", [False, True])
def test_worst_case_on_a_network_equals_a_long_search(p: float, adaptive: bool) -> None:
    model, objective = classifier(model=no_bias())
    loss, w = loss_of_weights(model, batches()), weights(model)
    plain = TwoPoint(metric=LpBall(p))
    scaled = TwoPoint(metric=LpBall(p), scale=scales.Adaptive(0))
    rho = {(2.0, False): 0.3, (2.0, True): 1.0}.get((p, adaptive), 0.05)
    within = scaled if adaptive else plain
    found = worst_sharpness(objective, rho, within=within, steps=200)
    expected = reference.worst_case(loss, w, rho, p, adaptive=adaptive)
    assert found.value == pytest.approx(expected, rel=0.01)
    assert found.value >= sharpness(objective, rho, within=within).value


def test_an_adaptive_ball_is_that_of_the_weights_and_not_of_where_it_climbs() -> None:
    model, objective = classifier(model=no_bias())
    w = torch.cat([p.flatten() for p in weights(model)])
    with points(objective) as seen:
        worst_sharpness(objective, 2.0, within=ADAPTIVE, steps=20)
    assert all((eps / w).norm() <= 2.0 * (1 + 1e-9) for eps in seen)


def test_a_weight_of_zero_does_not_move_in_an_adaptive_ball() -> None:
    model, objective, _ = regression()
    with torch.no_grad():
        model.weight[0, 1] = 0
    with points(objective) as seen:
        worst = worst_sharpness(objective, RHO, within=ADAPTIVE, steps=5)
    assert all(eps[1] == 0 for eps in seen)
    assert math.isfinite(worst.value)


@pytest.mark.parametrize("p", [2.0, math.inf])
def test_each_layer_may_have_a_ball_of_its_own(p: float) -> None:
    model, objective = classifier()
    within = TwoPoint(metric=PerLayer(LpBall(p)))
    with points(objective) as seen:
        worst = worst_sharpness(objective, 0.2, within=within, steps=20)
    assert worst.value >= sharpness(objective, 0.2, within=within).value
    sizes = [w.numel() for w in weights(model)]
    for eps in seen:
        for e, w in zip(eps.split(sizes), weights(model), strict=True):
            assert lp_norm(e, p) <= 0.2 * float(w.norm()) * (1 + 1e-9)


def test_one_group_of_parameters_has_the_common_ball() -> None:
    _, objective = quadratic()
    grouped = worst_sharpness(
        objective, RHO, within=TwoPoint(metric=PerGroup(LpBall()))
    )
    assert grouped.value == worst_sharpness(objective, RHO).value


def test_worst_case_is_at_least_zero() -> None:
    model = nn.ParameterList([torch.full((1,), 0.1).double()])

    def forward(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        return x - model[0] ** 2 / 2, x

    data = [torch.zeros(2).double()]
    objective = Objective(model, lambda out, _: out.mean(), data, forward=forward)
    # From 0.1 a step of 1 goes over the top at 0, to -0.9.
    worst = worst_sharpness(objective, 1.0, steps=0)
    assert worst.history == (pytest.approx((0.1**2 - 0.9**2) / 2),)
    assert worst.value == 0

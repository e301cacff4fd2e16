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


def two_hills(n: int) -> Objective:
    """``x/10 + x^2 - x^3/2`` of the first of ``n`` weights, which are 0.

    Within [-1, 1] it has a hill at either end: 0.6 at 1, where the slope at 0 leads,
    and 1.4 at -1.
    """
    model = nn.ParameterList([torch.zeros(n).double()])

    def forward(_: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        w = model[0][0]
        return x + w / 10 + w**2 - w**3 / 2, x

    data = [torch.zeros(2).double()]
    return Objective(model, lambda out, _: out.mean(), data, forward=forward)


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


@pytest.mark.parametrize("n", [1, 2, 10])
def test_a_restart_finds_the_hill_to_which_the_gradient_does_not_lead(n: int) -> None:
    objective = two_hills(n)
    single = worst_sharpness(objective, 1.0, steps=60)
    assert single.value == pytest.approx(0.6, rel=1e-6)
    several = worst_sharpness(objective, 1.0, steps=60, restarts=8)
    assert several.value == pytest.approx(1.4, rel=1e-6)
    # Every ascent ends on one of the two, the first one on the lower.
    for k, top in enumerate(several.starts):
        assert top == pytest.approx(0.6 if top < 1 or k == 0 else 1.4, rel=1e-6)


@pytest.mark.parametrize("within", [TwoPoint(), ADAPTIVE, TwoPoint(metric=LpBall(1.5))])
def test_restarts_never_give_less(within: TwoPoint) -> None:
    _, objective = classifier(model=no_bias())
    single = worst_sharpness(objective, RHO, within=within, steps=5)
    assert single.starts == (single.value,)
    before = single
    for restarts in (1, 3):
        more = worst_sharpness(
            objective, RHO, within=within, steps=5, restarts=restarts
        )
        assert more.value >= before.value
        assert more.starts[: len(before.starts)] == before.starts
        assert len(more.starts) == restarts + 1
        assert more.value == max(more.starts) == max(more.history)
        before = more


def test_the_history_is_that_of_the_best_ascent() -> None:
    objective = two_hills(2)
    several = worst_sharpness(objective, 1.0, steps=5, restarts=4)
    # The best is neither the first nor the last.
    assert several.value not in (several.starts[0], several.starts[-1])
    assert len(several.history) == 6
    assert max(several.history) == several.value == max(several.starts)
    assert several.history[0] != worst_sharpness(objective, 1.0, steps=0).value


@pytest.mark.parametrize("n", [2, 5])
def test_restarts_on_a_quadratic_do_not_pass_the_trust_region_solution(n: int) -> None:
    model, objective = quadratic(n)
    exact = trust_region(model.a, model.a @ model.w.detach(), 5.0)
    worst = worst_sharpness(objective, 5.0, steps=100, restarts=5)
    assert all(top <= exact * (1 + 1e-12) for top in worst.starts)
    assert worst.value == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("p", EVERY_P)
def test_a_restart_begins_on_the_surface_and_stays_in_the_ball(p: float) -> None:
    _, objective = quadratic()
    with points(objective) as seen:
        worst_sharpness(objective, RHO, p=p, steps=4, restarts=2)
    assert len(seen) == 15
    assert all(lp_norm(eps, p) <= RHO * (1 + 1e-9) for eps in seen)
    starts = seen[5], seen[10]
    assert all(lp_norm(eps, p) == pytest.approx(RHO) for eps in starts)
    assert not torch.allclose(*starts)


def test_the_starts_of_one_seed_are_gaussian_directions() -> None:
    _, objective = quadratic()
    with points(objective) as seen:
        worst_sharpness(objective, RHO, steps=0, restarts=2, seed=3)
    draw = torch.Generator().manual_seed(3)
    for eps in seen[1:]:
        z = torch.randn(5, generator=draw, dtype=torch.float64)
        torch.testing.assert_close(eps, RHO * z / z.norm())


def test_an_adaptive_restart_begins_on_the_surface_in_units_of_the_weights() -> None:
    model, objective = classifier(model=no_bias())
    w = torch.cat([p.flatten() for p in weights(model)])
    with points(objective) as seen:
        worst_sharpness(objective, 2.0, within=ADAPTIVE, steps=0, restarts=1)
    z = seen[1] / w.abs()
    assert z.norm().item() == pytest.approx(2.0)
    # As far along small weights as along large ones.
    small = w.abs() < w.abs().median()
    assert (z[small].norm() / z[~small].norm()).item() == pytest.approx(1, abs=0.3)


def test_a_weight_that_does_not_move_is_where_it_was_at_every_start() -> None:
    _, objective = classifier()
    with points(objective) as seen:
        within = TwoPoint(filter=lambda step, g: [g[0], *[None] * (len(g) - 1)])
        worst_sharpness(objective, RHO, within=within, steps=1, restarts=2)
    assert {len(eps) for eps in seen} == {objective.w[0].numel()}


def test_a_seed_says_where_the_restarts_begin() -> None:
    _, objective = classifier()

    def found(seed: int) -> tuple[float, ...]:
        return worst_sharpness(objective, steps=2, restarts=2, seed=seed).starts

    assert found(0) == found(0)
    assert found(0)[0] == found(1)[0]
    assert found(0)[1:] != found(1)[1:]


def test_a_record_says_how_often_it_began_anew() -> None:
    _, objective = classifier()
    how = worst_sharpness(objective, 0.1, steps=2, restarts=3, seed=7).how
    assert how == "2 steps of at most 0.1, 3 restarts, seed 7"
    assert worst_sharpness(objective, 0.1, steps=2).how == "2 steps of at most 0.1"


def test_a_ball_without_extent_has_no_other_starts() -> None:
    _, objective = classifier()
    assert worst_sharpness(objective, 0, steps=1, restarts=2).starts == (0, 0, 0)


def test_fewer_than_no_restarts_are_refused() -> None:
    _, objective = classifier()
    with pytest.raises(ValueError, match="restarts must be at least 0, got -1"):
        worst_sharpness(objective, restarts=-1)


class Modulus(nn.Module):
    """``mean |x . z|`` of complex weights, which rises with every modulus alone."""

    def __init__(self) -> None:
        super().__init__()
        self.z = nn.Parameter(torch.tensor([3 + 4j, 1j, -2], dtype=torch.complex128))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.z.abs()


@pytest.mark.parametrize("p", [2.0, math.inf])
def test_of_complex_weights_every_modulus_rises(p: float) -> None:
    """By 0.1 each in the largest norm; by as much together in the Euclidean one."""
    data = [(torch.ones(5, 3).double(), torch.zeros(5))]
    objective = Objective(Modulus(), lambda out, _: out.sum(1).mean(), data)
    rise = worst_sharpness(objective, 0.1, p=p).value
    assert rise == pytest.approx(0.3 if math.isinf(p) else 0.1 * math.sqrt(3))

import math

import pytest
import torch
from torch import Tensor

from flatmin.core import Ascent, LpBall, Metric, PerGroup
from tests.core.balls import climb, flat

BALL = PerGroup(LpBall(2))


def gradients() -> list[Tensor]:
    return [torch.tensor(v).double() for v in ([3.0], [4.0, 12.0], [-4.0])]


def test_every_group_has_a_ball_of_its_own() -> None:
    g = gradients()
    ascent = BALL(g, g, [0.5, 0.1, 0.5], [0, 1, 0])
    first, second = climb(2, [g[0], g[2]], 0.5).eps, climb(2, [g[1]], 0.1).eps
    assert flat(ascent.eps).tolist() == flat([first[0], *second, first[1]]).tolist()
    assert ascent.norm.tolist() == pytest.approx([5.0, math.hypot(4, 12)])
    assert ascent.ok.item() is True


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
def test_one_group_is_the_ball_itself(p: float) -> None:
    g = gradients()
    ascent = PerGroup(LpBall(p))(g, g, [0.3] * 3, [2] * 3)
    assert flat(ascent.eps).tolist() == flat(climb(p, g, 0.3).eps).tolist()


def test_a_group_of_radius_zero_does_not_move_and_does_not_count() -> None:
    g = gradients()
    ascent = BALL(g, g, [0.5, 0.0, 0.5], [0, 1, 0])
    assert ascent.eps[1] is None
    assert flat([ascent.eps[0], ascent.eps[2]]).tolist() == pytest.approx([0.3, -0.4])
    assert ascent.norm.tolist() == [5.0]


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
def test_a_group_with_a_zero_gradient_does_not_stop_the_others(p: float) -> None:
    g = [torch.zeros(1), torch.tensor([2.0])]
    ascent = PerGroup(LpBall(p))(g, g, [0.5, 0.25], [0, 1])
    assert flat(ascent.eps).tolist() == [0.0, 0.25]
    assert ascent.ok.item() is True


def test_all_groups_zero_is_not_ok() -> None:
    g = [torch.zeros(1), torch.zeros(2)]
    ascent = BALL(g, g, [0.5, 0.25], [0, 1])
    assert flat(ascent.eps).tolist() == [0.0] * 3
    assert ascent.ok.item() is False


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_group_that_is_not_finite_stops_all(bad: float) -> None:
    g = [torch.tensor([bad]), torch.tensor([2.0])]
    ascent = BALL(g, g, [0.5, 0.25], [0, 1])
    assert flat(ascent.eps).tolist() == [0.0, 0.0]
    assert ascent.ok.item() is False


def test_a_toy_metric_can_be_the_ball() -> None:
    class Weights(Metric):
        def __call__(
            self, w: list[Tensor], g: list[Tensor], rho: list[float], group: list[int]
        ) -> Ascent:
            ascent = LpBall(2)(w, w, rho, group)
            assert len(set(group)) == 1
            return ascent

    w, g = [torch.tensor([2.0]), torch.tensor([-3.0])], [torch.ones(1), torch.ones(1)]
    ascent = PerGroup(Weights())(w, g, [0.5, 0.25], [0, 1])
    assert flat(ascent.eps).tolist() == [0.5, -0.25]

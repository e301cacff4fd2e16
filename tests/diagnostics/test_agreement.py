"""By what a fast way is told from a wrong one."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

from flatmin.diagnostics import Objective, _grid, directions, landscape
from flatmin.diagnostics._agreement import Losses, Row, truth
from tests.diagnostics.small import convnet, four_threads, images, pictures

SINGLE = [torch.zeros(1)]


def points(function: Callable[[float], float]) -> Losses:
    """A loss along one direction."""

    def losses(rows: Any) -> Tensor:
        return torch.tensor([function(c) for (c,) in rows], dtype=torch.float64)

    return losses


def agree(
    one: Callable[[float], float], other: Callable[[float], float], at: Any
) -> bool:
    rows: list[Row] = [(x,) for x in at]
    true = truth(points(one), rows, SINGLE)
    return true.agrees(points(other)(true.rows))


def parabola(c: float) -> float:
    return 0.7 + 3 * c * c


RADII = [1.0, 1e-2, 1e-3, 1e-5]


@pytest.mark.parametrize("radius", RADII)
def test_a_way_that_does_not_move_is_wrong_at_every_radius(radius: float) -> None:
    assert agree(parabola, parabola, (-radius, 0, radius))
    assert not agree(parabola, lambda _: 0.7, (-radius, 0, radius))


@pytest.mark.parametrize("radius", RADII)
def test_a_way_that_lacks_a_twentieth_of_the_rise_is_wrong(radius: float) -> None:
    assert not agree(parabola, lambda c: 0.7 + 2.85 * c * c, (-radius, 0, radius))


@pytest.mark.parametrize("radius", RADII)
def test_rounding_is_no_difference(radius: float) -> None:
    def rounded(c: float) -> float:
        return parabola(c) * (1 + 4 * torch.finfo(torch.float32).eps)

    assert agree(parabola, rounded, (-radius, 0, radius))


def test_a_loss_that_is_not_finite_far_away_is_compared_close_by() -> None:
    def steep(c: float) -> float:
        return parabola(c) if abs(c) < 1 else math.inf

    assert agree(steep, steep, (0.5, 4))
    assert not agree(steep, parabola, (0.5, 4))
    assert not agree(steep, lambda c: 0.7 if abs(c) < 1 else math.inf, (0.5, 4))


@pytest.mark.parametrize("value", [1.0, math.nan])
def test_where_nothing_tells_ways_apart_none_is_right(value: float) -> None:
    assert not agree(lambda _: value, lambda _: value, (1, 2))


def test_a_loss_that_ends_before_it_tells_leaves_no_way() -> None:
    def narrow(c: float) -> float:
        return 1.0 if abs(c) < 1 else math.nan

    assert not agree(narrow, narrow, (0.5, 0.75))


def test_at_w_alone_nothing_has_to_move() -> None:
    assert agree(parabola, parabola, (0.0,))


def test_only_points_close_by_need_one_further_out() -> None:
    rows = truth(points(parabola), [(0.5,), (1.0,)], SINGLE).rows
    assert rows == [(0.5,), (1.0,)]
    rows = truth(points(parabola), [(1e-3,)], SINGLE).rows
    assert rows[0] == (1e-3,)
    assert rows[-1][0] > 0.02


class Detached(nn.Module):
    """Reads half of its weights where neither a graph nor `functional_call` sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.aside = [self.layer.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + 0.3 * F.linear(x, self.aside[0].detach())


class Listed(Detached):
    """Reads them where the graph shows it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + 0.3 * F.linear(x, self.aside[0])


def rises(objective: Objective, radius: float, how: Any) -> list[float]:
    u = directions.random(objective, 0)
    low, middle, high = landscape.line(
        objective, u, a=landscape.axis(3, radius), how=how
    ).losses
    return [low - middle, high - middle]


@pytest.mark.parametrize("make", [Detached, Listed])
@pytest.mark.parametrize("radius", [1.0, 1e-2, 1e-3])
def test_a_line_is_the_loops_for_weights_that_do_not_move_with_the_others(
    make: Any, radius: float
) -> None:
    torch.manual_seed(0)
    data = [(torch.randn(16, 6), torch.randint(3, (16,)))]
    objective = Objective(make(), F.cross_entropy, data)
    # A copy of the module has no weights of its own in the list.
    assert rises(objective, radius, "auto") == pytest.approx(
        rises(objective, radius, "loop"), rel=1e-3, abs=1e-6
    )
    with pytest.raises(ValueError, match="how='stacked' does not give"):
        rises(objective, radius, "stacked")


@pytest.mark.parametrize("radius", [1.0, 1e-2, 2e-4])
def test_threads_are_refused_for_another_models_loss(radius: float) -> None:
    model = convnet().float()
    data = [(x.float(), y) for x, y in images()]
    objective = Objective(
        model, F.cross_entropy, data, forward=lambda _, b: (model(b[0]), b[1])
    )
    with pytest.raises(ValueError, match="how='threads' does not give"):
        rises(objective, radius, "threads")
    assert rises(objective, radius, "auto") == pytest.approx(
        rises(objective, radius, "loop"), rel=1e-3, abs=1e-6
    )


def way_of(objective: Objective) -> str:
    u = directions.random(objective, 0)
    grid = _grid.Grid(objective, [u], False, 2**30)
    with grid.way("auto", [(1.0,)]) as way:
        return way.name


@contextmanager
def hook_of_all() -> Iterator[None]:
    handle = register_module_forward_hook(lambda *_: None)
    try:
        yield
    finally:
        handle.remove()


def hooked() -> nn.CrossEntropyLoss:
    criterion = nn.CrossEntropyLoss()
    criterion.register_forward_hook(lambda *_: None)
    return criterion


def test_threads_are_for_functions_of_torchs_alone() -> None:
    assert way_of(pictures()) == "threads"
    with hook_of_all():
        assert way_of(pictures()) != "threads"
    for hook in ("register_forward_hook", "register_forward_pre_hook"):
        objective = pictures()
        getattr(objective.model[0], hook)(lambda *_: None)  # pyright: ignore
        assert way_of(objective) != "threads"
    objective = pictures()
    layer: Any = objective.model[4]  # pyright: ignore
    layer.forward = lambda x: F.linear(x, layer.weight, layer.bias)
    assert way_of(objective) != "threads"


def one_per_example(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y, reduction="none")


@pytest.mark.parametrize(
    ("criterion", "options"),
    [
        (one_per_example, {}),
        (hooked(), {}),
        (F.cross_entropy, {"forward": lambda m, b: (m(b[0]), b[1])}),
    ],
    ids=["criterion", "hook of a criterion", "forward"],
)
def test_no_function_of_the_users_is_called_from_a_thread(
    criterion: Any, options: Any
) -> None:
    objective = Objective(convnet(), criterion, images(), **options)
    assert way_of(objective) != "threads"


def test_what_a_hook_keeps_is_of_the_point_that_is_measured() -> None:
    model, kept = convnet(), dict[str, Tensor]()
    callers: set[int] = set()

    def keep(_: object, __: object, out: Tensor) -> None:
        callers.add(threading.get_ident())
        kept["x"] = out

    model[2].register_forward_hook(keep)
    objective = Objective(
        model,
        lambda o, y: F.cross_entropy(o[0], y, reduction="none") + o[1].mean((1, 2, 3)),
        images(),
        forward=lambda m, b: ((m(b[0]), kept["x"]), b[1]),
    )
    with four_threads():
        found = rises(objective, 1.0, "auto")
    assert callers == {threading.get_ident()}
    assert found == pytest.approx(rises(objective, 1.0, "loop"), rel=1e-9)


def test_threads_are_in_the_autocast_region_of_their_caller() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    data = [(torch.randn(16, 6), torch.randint(3, (16,)))]

    def forward(module: nn.Module, pair: Any) -> tuple[Tensor, Tensor]:
        return module(pair[0]).float(), pair[1]

    objective = Objective(model, F.cross_entropy, data, forward=forward)
    outside = rises(objective, 0.5, "loop")
    with torch.autocast("cpu", torch.bfloat16):
        objective = Objective(model, F.cross_entropy, data, forward=forward)
        expected = rises(objective, 0.5, "loop")
        assert rises(objective, 0.5, "threads") == pytest.approx(expected, rel=1e-6)
    assert expected != pytest.approx(outside, rel=1e-6)

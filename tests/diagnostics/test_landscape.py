"""Lines and planes of losses: closed forms, and what each of them depends on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from flatmin.diagnostics import Objective, directions, landscape
from flatmin.diagnostics.landscape import Line, axis
from tests.diagnostics.small import (
    WAYS,
    convnet,
    dense,
    images,
    losses,
    pictures,
    quadratic,
    same,
    two,
)
from tests.problems import batch, mlp


@pytest.mark.parametrize("how", WAYS)
def test_the_plane_of_a_quadratic_is_its_closed_form(how: Any) -> None:
    objective = quadratic()
    model = objective.model
    (w,) = (p.detach() for p in objective.w)
    draw = torch.Generator().manual_seed(4)
    u, v = torch.randn(2, len(w), generator=draw, dtype=torch.float64)
    at = (-1.5, 0.0, 0.25, 2.0)
    plane = landscape.plane(objective, [u], [v], a=at, b=axis(3), how=how)
    expected = [[model.loss(w + a * u + b * v) for a in at] for b in axis(3)]  # pyright: ignore
    same(losses(plane), torch.tensor(expected, dtype=torch.float64), 1e-12)


def test_the_line_of_a_linear_model_is_a_parabola() -> None:
    torch.manual_seed(3)
    model = nn.Linear(6, 2).double()
    x, y = torch.randn(2, 10, 6).double()[0], torch.randn(10, 2).double()
    objective = Objective(model, mse_loss, [(x, y)])
    u = directions.random(objective, 0)
    line = landscape.line(objective, u, a=(-2, -1, 0, 1, 2))
    slope = x @ u[0].T + u[1]
    rest = model(x).detach() - y
    expected = [((rest + a * slope) ** 2).mean() for a in line.a]
    same(losses(line), torch.stack(expected), 1e-12)


def test_a_line_between_two_models_ends_at_their_losses() -> None:
    objective, other = dense(), mlp()
    line = landscape.line(
        objective, directions.between(objective, other), a=(0.0, 0.5, 1.0)
    )
    ends = objective.loss(), Objective(other, cross_entropy, objective.data).loss()
    same(losses(line)[[0, 2]], torch.stack(ends), 1e-14)


def test_a_plane_through_three_models_has_their_losses() -> None:
    objective, others = dense(), (mlp(), mlp())
    basis = directions.through(objective, *others)
    (a, _), (c, d) = basis.coordinates
    plane = landscape.plane(
        objective, basis.u, basis.v, a=(0.0, a, c), b=(0.0, d),
        marks={"other": (a, 0.0)},
    )  # fmt: skip
    found = losses(plane)
    expected = [objective.loss()] + [
        Objective(other, cross_entropy, objective.data).loss() for other in others
    ]
    same(torch.stack([found[0, 0], found[0, 1], found[1, 2]]), torch.stack(expected))
    assert plane.marks == (("other", a, 0.0),)


def test_scaling_two_layers_inversely_changes_the_raw_landscape_alone() -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    data = [batch(torch.float64)]
    found: dict[bool, list[Tensor]] = {True: [], False: []}
    for scale in (1.0, 8.0):
        with torch.no_grad():
            model[0].weight.mul_(scale)  # pyright: ignore
            model[0].bias.mul_(scale)  # pyright: ignore
            model[2].weight.div_(scale)  # pyright: ignore
        objective = Objective(model, cross_entropy, data)
        for by_filter, planes in found.items():
            u, v = (
                directions.random(objective, k, by_filter=by_filter) for k in (0, 1)
            )
            planes.append(losses(landscape.plane(objective, u, v, a=axis(5))))
    same(found[True][0], found[True][1])
    assert (found[False][0] - found[False][1]).abs().max() > 0.1


def test_rows_are_along_v_and_columns_along_u() -> None:
    objective = quadratic()
    (w,) = objective.w
    u, v = [torch.zeros_like(w)], [w.detach().clone()]
    plane = landscape.plane(objective, u, v, a=(0.0, 5.0), b=(0.0, -1.0, 1.0))
    at = float(objective.loss())
    same(losses(plane), at * torch.tensor([[1.0, 1], [0, 0], [4, 4]]).double(), 1e-12)


def test_infinite_and_missing_losses_are_kept() -> None:
    model = nn.Linear(6, 1, bias=False).double()
    x = torch.ones(4, 6, dtype=torch.float64)
    objective = Objective(model, lambda out, _: torch.exp(out).mean(), [(x, x)])
    u = [torch.full_like(model.weight, 1e200)]
    line = landscape.line(objective, u, a=(-1.0, 0.0, 1.0))
    assert line.losses[0] == 0
    assert line.losses[2] == math.inf
    u = [torch.full_like(model.weight, math.nan)]
    line = landscape.line(objective, u, a=(0.0, 1.0))
    assert all(map(math.isnan, line.losses))
    assert all(map(math.isnan, Line.from_dict(line.to_dict()).losses))


@pytest.mark.parametrize("how", ["loop", "threads"])
def test_recalibrating_is_what_one_does_by_hand(how: Any) -> None:
    objective = pictures()
    u, v = two(objective)
    plane = landscape.plane(objective, u, v, a=axis(3), how=how, recalibrate=True)
    expected = []
    for b in axis(3):
        for a in axis(3):
            model = convnet()
            with torch.no_grad():
                for p, x, y in zip(model.parameters(), u, v, strict=True):
                    p.add_(a * x + b * y)
            torch.optim.swa_utils.update_bn(objective.data, model)
            expected.append(Objective(model.eval(), cross_entropy, images()).loss())
    same(losses(plane), torch.stack(expected).view(3, 3))
    plain = landscape.plane(objective, u, v, a=axis(3), how=how)
    assert (losses(plain) - losses(plane)).abs().max() > 0.01


def test_recalibrating_refuses_what_would_mix_processes() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(convnet())
    objective = Objective(model, cross_entropy, images())
    u = directions.random(objective, 0)
    with pytest.raises(ValueError, match="SyncBatchNorm"):
        landscape.line(objective, u, recalibrate=True)


def test_what_makes_no_sense_is_refused() -> None:
    objective = dense()
    u, v = two(objective)
    for attempt, message in (
        (lambda: axis(1), "at least 2 points"),
        (lambda: axis(3, -1.0), "positive radius"),
        (lambda: landscape.line(objective, u, a=()), "a must be finite numbers"),
        (lambda: landscape.plane(objective, u, v, b=(math.nan,)), "b must be finite"),
        (lambda: landscape.plane(objective, u, v[:-1]), "v must be one tensor per"),
    ):
        with pytest.raises(ValueError, match=message):
            attempt()


def test_the_axis_passes_through_the_middle() -> None:
    assert axis(5) == (-1.0, -0.5, 0.0, 0.5, 1.0)
    assert axis(3, 0.1) == (-0.1, 0.0, 0.1)
    assert len(axis()) == 31

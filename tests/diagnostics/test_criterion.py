"""Every number is that of the loss of all data in one batch."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.diagnostics import (
    Objective,
    _grid,
    average_sharpness,
    landscape,
    m_sharpness,
    sharpness,
    worst_sharpness,
)
from tests.diagnostics.losses import (
    CASES,
    CUTS,
    WEIGHT,
    Case,
    classes,
    cut,
    fresh,
    hessian,
    ignored,
    inputs,
    loss_of,
    network,
    numbers,
)
from tests.diagnostics.problems import RHO, weights, whole
from tests.diagnostics.small import WAYS
from tests.reference import sharpness as reference
from tests.reference.sam import gradients

NAMED = [pytest.param(one, id=name) for name, one in CASES.items()]
#: Of these two torch has no second derivatives.
CURVED = [one for one in NAMED if one.id not in {"multi margin", "labels margin"}]
UNEVEN = [
    CASES[name]
    for name in (
        "weights and ignored",
        "weighted tokens",
        "smoothed",
        "sum and divisor",
    )
]


def spelled(sizes: list[int]) -> str:
    return "+".join(map(str, sizes))


def objective_of(one: Case, sizes: list[int]) -> tuple[nn.Module, Objective]:
    model = network(one.tail)
    return model, Objective(model, one.criterion, cut(one.targets, sizes))


@pytest.mark.parametrize("one", NAMED)
@pytest.mark.parametrize("sizes", CUTS, ids=spelled)
def test_loss_and_gradient_are_those_of_one_batch(one: Case, sizes: list[int]) -> None:
    model, objective = objective_of(one, sizes)
    loss, w = loss_of(one, model), weights(model)
    value, g = objective.gradient()
    torch.testing.assert_close(value, loss(w).detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(objective.loss(), value, rtol=1e-12, atol=0)
    torch.testing.assert_close(g, gradients(loss, w), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("one", CURVED)
def test_curvature_is_that_of_one_batch(one: Case) -> None:
    model, objective = objective_of(one, [5, 4, 3])
    expected = hessian(one, model)
    torch.testing.assert_close(whole(objective, "hessian"), expected)


@pytest.mark.parametrize("one", UNEVEN)
def test_the_gauss_newton_matrix_is_that_of_one_batch(one: Case) -> None:
    together = whole(objective_of(one, [12])[1], "ggn")
    torch.testing.assert_close(whole(objective_of(one, [4, 8])[1], "ggn"), together)
    # Its eigenvalues are those of J'HJ, which for one linear layer is the Hessian.
    model = nn.Linear(6, 3).double()
    one = CASES["weights and ignored"]
    objective = Objective(model, one.criterion, cut(one.targets, [4, 5, 3]))
    torch.testing.assert_close(whole(objective, "ggn"), hessian(one, model))


@pytest.mark.parametrize("one", UNEVEN)
@pytest.mark.parametrize("sizes", CUTS, ids=spelled)
def test_sharpness_is_that_of_one_batch(one: Case, sizes: list[int]) -> None:
    model, objective = objective_of(one, sizes)
    expected = reference.one_step(loss_of(one, model), weights(model), RHO, 2.0)
    assert sharpness(objective, RHO).value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("one", UNEVEN)
def test_ascents_and_draws_are_those_of_one_batch(one: Case) -> None:
    _, together = objective_of(one, [12])
    _, apart = objective_of(one, [4, 5, 3])
    worst = [worst_sharpness(o, RHO, steps=3).value for o in (together, apart)]
    assert worst[0] == pytest.approx(worst[1], rel=1e-9)
    average = [average_sharpness(o, RHO, draws=3).value for o in (together, apart)]
    assert average[0] == pytest.approx(average[1], rel=1e-9)


@pytest.mark.parametrize("one", UNEVEN)
@pytest.mark.parametrize("how", WAYS)
def test_landscapes_are_those_of_one_batch(one: Case, how: Any) -> None:
    model, objective = objective_of(one, [4, 5, 3])
    loss, w = loss_of(one, model), weights(model)
    at = (-0.5, 0.0, 0.7)
    found = landscape.line(objective, w, a=at, how=how).losses
    expected = [float(loss([(1 + a) * p for p in w])) for a in at]
    assert found == pytest.approx(expected, rel=1e-12)


def test_points_with_class_weights_are_stacked() -> None:
    _, objective = objective_of(CASES["weights and ignored"], [4, 5, 3])
    grid = _grid.Grid(objective, [[*objective.w]], False, 2**30)
    with grid.way("auto", [(0.5,)]) as way:
        assert way.name == "stacked"


def groups_of(one: Case, m: int) -> tuple[list[float], list[float]]:
    """The rise and the weight of each group, by the formula."""
    model = network(one.tail)
    rises, counts = list[float](), list[float]()
    for k in range(0, 12, m):
        y = one.targets[k : k + m]
        kept = y[y != -100]
        counts.append(float(WEIGHT[kept].sum()))
        if len(kept) == 0:
            rises.append(0.0)
            continue
        loss = loss_of(one, model, at=slice(k, k + m))
        rises.append(reference.one_step(loss, weights(model), RHO, 2.0))
    return rises, counts


@pytest.mark.parametrize("vmapped", [True, False])
@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("name", ["weights and ignored", "weighted tokens"])
def test_groups_count_by_what_their_loss_divides_by(
    name: str, m: int, vmapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not vmapped:
        monkeypatch.setattr("flatmin.diagnostics._m_sharpness._VMAP_UP_TO", 0)
    one = CASES[name]
    rises, counts = (torch.tensor(xs, dtype=torch.float64) for xs in groups_of(one, m))
    _, objective = objective_of(one, [8, 4])
    measured = m_sharpness(objective, RHO, m)
    mean = float(counts @ rises / counts.sum())
    assert measured.value == pytest.approx(mean, rel=1e-9)
    counted = int((counts > 0).sum())
    assert (measured.groups, measured.n) == (counted, counted * m)
    spread = (counts * (rises - mean)).square().sum() / counts.sum() ** 2
    error = math.sqrt(float(spread) * counted / (counted - 1))
    assert measured.error == pytest.approx(error, rel=1e-8)


def test_one_group_of_all_examples_is_plain_sharpness_with_weights_too() -> None:
    _, objective = objective_of(CASES["weights and ignored"], [12])
    measured = m_sharpness(objective, RHO, 12)
    assert measured.value == pytest.approx(sharpness(objective, RHO).value, rel=1e-12)


def test_one_group_that_counts_has_no_error() -> None:
    y = torch.full((12,), -100)
    y[5] = 1
    objective = Objective(network(nn.Identity()), F.cross_entropy, cut(y, [12]))
    measured = m_sharpness(objective, RHO, 4)
    assert (measured.groups, measured.n, measured.error) == (1, 4, None)
    assert measured.value == pytest.approx(sharpness(objective, RHO).value, rel=1e-12)


def test_the_divisor_is_that_of_torch() -> None:
    y = ignored(classes())
    assert fresh(F.cross_entropy, y).divisor == 7
    weighted = fresh(nn.CrossEntropyLoss(WEIGHT), y)
    assert weighted.divisor == pytest.approx(float(WEIGHT[y[y >= 0]].sum()))
    assert weighted.n == 12
    assert fresh(nn.MSELoss(), numbers()).divisor == 36


def test_targets_may_be_several_tensors() -> None:
    data = [(x, (y, y.flip(0), torch.tensor(0.3))) for x, y in cut(classes(), [6, 6])]
    model = network(nn.Identity())

    def mixed(o: Tensor, y: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        one, other = (F.cross_entropy(o, t, reduction="none") for t in y[:2])
        return y[2] * one + (1 - y[2]) * other

    objective = Objective(model, mixed, data)
    assert objective.n == 12
    expected = torch.cat([mixed(model(x), y) for x, y in data]).mean()
    torch.testing.assert_close(objective.loss(), expected.detach())


def test_an_empty_batch_counts_nothing() -> None:
    y = classes()
    with_empty = fresh(F.cross_entropy, y, (6, 0, 6))
    assert with_empty.sizes == [6, 0, 6]
    assert torch.equal(with_empty.loss(), fresh(F.cross_entropy, y).loss())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_classes_in_bytes_have_the_weights_of_their_classes(dtype: torch.dtype) -> None:
    """As many targets as classes, and more: as a mask, bytes would fail in one case."""
    for n in (3, 12):
        y = classes()[:n]
        criterion = nn.CrossEntropyLoss(WEIGHT)
        model = network(nn.Identity())
        data = [(inputs()[:n], y.to(dtype))]
        objective = Objective(model, criterion, data)
        expected = criterion(model(inputs()[:n]).detach(), y)
        assert float(objective.loss()) == pytest.approx(float(expected), rel=1e-12)
        assert objective.divisor == pytest.approx(float(WEIGHT[y].sum()), rel=1e-12)


def test_options_are_those_that_the_criterion_has_when_it_is_measured() -> None:
    criterion = nn.CrossEntropyLoss(WEIGHT)
    objective = fresh(criterion, classes())
    criterion.label_smoothing = 0.3
    expected = criterion(objective.model(inputs()).detach(), classes())
    assert float(objective.loss()) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("change", [{"weight": 2 * WEIGHT}, {"ignore_index": 1}])
def test_options_that_change_the_divisor_are_refused(change: dict[str, Any]) -> None:
    criterion = nn.CrossEntropyLoss(WEIGHT)
    objective = fresh(criterion, classes())
    for name, value in change.items():
        setattr(criterion, name, value)
    for read in (objective.loss, objective.gradient):
        with pytest.raises(ValueError, match="changed the criterion, build a new"):
            read()

"""Models that compute another function in some passes: numbers are those of one."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from flatmin.core import TwoPoint, scales
from flatmin.diagnostics import (
    Monitor,
    Objective,
    average_sharpness,
    eigenvalues,
    landscape,
    m_sharpness,
    sharpness,
    trace,
    worst_sharpness,
)
from flatmin.diagnostics._products import Curvature
from flatmin.diagnostics.directions import between, random
from flatmin.diagnostics.landscape import axis
from tests.diagnostics.problems import batches, whole


class Listed(nn.Module):
    """Reads its weights from a list."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(0.5 * torch.randn(6, 8, dtype=torch.float64))
        self.last = nn.Parameter(0.5 * torch.randn(8, 3, dtype=torch.float64))
        self.weights = [self.first, self.last]

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weights[0]) @ self.weights[1]


class Partly(nn.Module):
    """Reads a weight as an attribute, and once more from a partial."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6).double()
        self.last = nn.Linear(6, 3).double()
        self.again = partial(F.linear, weight=self.inner.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.again(torch.tanh(self.inner(x)))))


def objective_of(model: nn.Module) -> Objective:
    return Objective(model.eval(), F.cross_entropy, batches())


@pytest.mark.parametrize("make", [Listed, Partly])
@pytest.mark.parametrize("m", [1, 8])
def test_groups_at_once_move_weights_that_are_read_from_elsewhere(
    make: Any, m: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    objective = objective_of(make())
    found = m_sharpness(objective, 0.1, m)
    monkeypatch.setattr("flatmin.diagnostics._m_sharpness._VMAP_UP_TO", 0)
    assert found.value == pytest.approx(m_sharpness(objective, 0.1, m).value, rel=1e-9)
    assert found.value > 0.01


@pytest.mark.parametrize("make", [Listed, Partly])
def test_a_gauss_newton_matrix_of_such_weights_is_refused(make: Any) -> None:
    torch.manual_seed(0)
    objective = objective_of(make())
    with pytest.raises(ValueError, match="a list, a partial or a closure"):
        eigenvalues(objective, matrix="ggn")
    with pytest.raises(ValueError, match="Use matrix='hessian'"):
        trace(objective, matrix="ggn")
    assert eigenvalues(objective, 1).value > 0


class ByTask(nn.Module):
    """Has a head for each task, one of which it reads from a list."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.plain = nn.Linear(6, 4).double(), nn.Linear(4, 3).double()
        self.other = nn.Linear(4, 3).double()
        self.aside = [self.other.weight, self.other.bias]

    def forward(self, x: Tensor, task: int) -> Tensor:
        x = torch.tanh(self.body(x))
        return F.linear(x, *self.aside) if task else self.plain(x)


class Slightly(nn.Module):
    """Reads a weight from a list that has a hundredth of the gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Linear(6, 3).double()
        self.large = nn.Linear(6, 3, bias=False).double()
        nn.init.constant_(self.large.weight, 300.0)
        self.aside = [self.large.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x) + 1e-3 * F.linear(x, self.aside[0])


def by_task(order: int) -> Objective:
    torch.manual_seed(0)
    x, y = batches()[0]
    data = [(x[:4], y[:4], 0), (x[4:], y[4:], 1)][::order]
    return Objective(
        ByTask(), F.cross_entropy, data, forward=lambda m, b: (m(b[0], b[2]), b[1])
    )


@pytest.mark.parametrize("order", [1, -1])
def test_every_batch_tells_whether_weights_are_read_from_elsewhere(
    order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = by_task(order)
    found = m_sharpness(objective, 0.5, 1).value
    with pytest.raises(ValueError, match="reads its weights as attributes"):
        Curvature(objective, "ggn")
    monkeypatch.setattr("flatmin.diagnostics._m_sharpness._VMAP_UP_TO", 0)
    assert found == pytest.approx(m_sharpness(objective, 0.5, 1).value, rel=1e-9)


def test_a_batch_without_a_gradient_hides_no_weights() -> None:
    torch.manual_seed(0)
    x, y = batches()[0]
    nothing = x, torch.full_like(y, -100)
    objective = Objective(Listed(), F.cross_entropy, [nothing, (x, y)])
    with pytest.raises(ValueError, match="reads its weights as attributes"):
        Curvature(objective, "ggn")
    alone = Objective(objective.model, F.cross_entropy, [(x, y)])
    found, expected = (m_sharpness(one, 0.5, 1) for one in (objective, alone))
    assert found.value == pytest.approx(expected.value, rel=1e-12)


@pytest.mark.parametrize(
    "within", [TwoPoint(), TwoPoint(scale=scales.Magnitude())], ids=["plain", "scaled"]
)
def test_a_weight_with_a_small_share_of_the_gradient_moves_all_the_same(
    within: TwoPoint,
) -> None:
    torch.manual_seed(0)
    objective = Objective(Slightly(), F.cross_entropy, batches()[:1])
    expected = sharpness(objective, 0.1, within=within).value
    found = m_sharpness(objective, 0.1, 8, within=within).value
    assert found == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="reads its weights as attributes"):
        Curvature(objective, "ggn")


def test_a_gauss_newton_matrix_of_a_criterion_with_weights_is_refused() -> None:
    model = nn.Linear(6, 3).double()

    def penalised(outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y) + model.weight.square().sum()

    objective = Objective(model, penalised, batches())
    assert eigenvalues(objective, 1).value > 2
    with pytest.raises(ValueError, match="leave the penalty out of the criterion"):
        Curvature(objective, "ggn")
    with torch.inference_mode(), pytest.raises(ValueError, match="has no gradient"):
        Curvature(objective_of(model), "ggn")
    with torch.inference_mode(), pytest.raises(ValueError, match="has no gradient"):
        m_sharpness(objective_of(model), 0.1, 1)


class Tempered(nn.Module):
    """A criterion that learns, too."""

    def __init__(self) -> None:
        super().__init__()
        self.cold = nn.Parameter(torch.tensor(2.0).double())

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.cold * outputs, y, reduction="none")


def test_a_graph_of_other_parameters_is_no_obstacle() -> None:
    model = nn.Linear(6, 3).double()
    tempered = Objective(model, Tempered(), batches())
    plain = Objective(
        model, F.cross_entropy, batches(), forward=lambda m, b: (2 * m(b[0]), b[1])
    )
    measures: list[Any] = [
        lambda o: trace(o, matrix="ggn").value,
        lambda o: m_sharpness(o, 0.1, 1).value,
        lambda o: landscape.line(o, random(o, 0), a=axis(2), how="stacked").losses[0],
    ]
    for measure in measures:
        assert measure(tempered) == pytest.approx(measure(plain), rel=1e-9)


def in_bfloat16(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        return model(batch[0]).float(), batch[1]


def as_it_is(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    return model(batch[0]).float(), batch[1]


def test_an_autocast_region_around_a_measurement_is_one_inside_of_forward() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    data = [(x.float(), y) for x, y in batches()]
    inside = Objective(model, F.cross_entropy, data, forward=in_bfloat16)
    measures: list[Any] = [
        lambda one: sharpness(one, 0.5).value,
        lambda one: worst_sharpness(one, 0.5, steps=2).value,
        lambda one: average_sharpness(one, 0.5, draws=2).value,
        lambda one: m_sharpness(one, 0.5, 8).value,
        lambda one: landscape.line(one, random(one, 0), a=axis(3), how="loop").losses,
    ]
    expected = [measure(inside) for measure in measures]
    with torch.autocast("cpu", torch.bfloat16):
        around = Objective(model, F.cross_entropy, data, forward=as_it_is)
        found = [measure(around) for measure in measures]
        after = model(data[0][0])
    assert found == expected
    assert expected[0] > 0.01
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(after, model(data[0][0]))


@pytest.mark.parametrize("first", [0.0, -1.0])
def test_a_line_from_0_moves_the_model_that_forward_refers_to(first: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    model = net.double().eval()
    data = [(torch.randn(8, 1, 6, 6).double(), torch.randint(3, (8,)))]
    objective = Objective(
        model, F.cross_entropy, data, forward=lambda _, b: (model(b[0]), b[1])
    )
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.3 * torch.randn_like(p))
    u, a = between(objective, other), [first, 0.5, 1.0]
    found = landscape.line(objective, u, a=a)
    by_hand = landscape.line(objective, u, a=a, how="loop")
    assert found.losses == pytest.approx(by_hand.losses, rel=1e-9)
    with torch.no_grad():
        assert found.losses[-1] == pytest.approx(
            float(F.cross_entropy(other(data[0][0]), data[0][1])), rel=1e-9
        )


def normed(kind: Any) -> nn.Sequential:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(kind(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 3)).double()


def hessian_by_differences(objective: Objective) -> Tensor:
    """Central differences of the gradient, one weight after the other."""
    sizes = [p.numel() for p in objective.w]
    shapes = [p.shape for p in objective.w]
    rows: list[Tensor] = []
    for e in 1e-5 * torch.eye(sum(sizes), dtype=torch.float64):
        ends: list[Tensor] = []
        for sign in (1, -1):
            parts = (sign * e).split(sizes)
            eps = [x.view(shape) for x, shape in zip(parts, shapes, strict=True)]
            with objective.at(eps):
                ends.append(torch.cat([g.flatten() for g in objective.gradient()[1]]))
        rows.append((ends[0] - ends[1]) / 2e-5)
    return torch.stack(rows)


@pytest.mark.parametrize(
    "kind", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm]
)
def test_the_hessian_of_normed_weights_is_that_of_differences(kind: Any) -> None:
    torch.manual_seed(0)
    objective = objective_of(normed(kind))
    exact = hessian_by_differences(objective)
    torch.testing.assert_close(whole(objective, "hessian"), exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "kind", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm]
)
def test_normed_weights_have_a_gauss_newton_matrix(kind: Any) -> None:
    torch.manual_seed(0)
    model = normed(kind)
    objective = objective_of(model)
    total = torch.zeros((), dtype=torch.float64)
    for x, _ in batches():
        outputs = model(x)
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(
                out, objective.w, retain_graph=True
            )])
            for out in outputs.flatten()
        ]  # fmt: skip
        p = outputs.softmax(1).detach()
        for i, j in enumerate(torch.stack(rows).view(*outputs.shape, -1)):
            of_outputs = torch.diag(p[i]) - p[i][:, None] * p[i]
            total = total + j.T @ of_outputs @ j
    exact = total / objective.n
    torch.testing.assert_close(whole(objective, "ggn"), exact, rtol=1e-9, atol=1e-12)


class Padded(nn.Module):
    """A transformer with padded positions, which torch's fast path sets to 0."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.pieces = nn.Embedding(9, 8)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        states = self.encoder(self.pieces(x), src_key_padding_mask=x == 0)
        return self.head(states.mean(1))


def sentences() -> list[tuple[Tensor, Tensor]]:
    x = torch.randint(1, 9, (8, 6))
    x[::2, 4:] = 0
    return [(x, torch.randint(3, (8,)))]


@pytest.mark.everything
def test_losses_and_gradients_of_a_transformer_are_of_one_function() -> None:
    torch.manual_seed(0)
    model = Padded().double().eval()
    with warnings.catch_warnings():
        # Of nested tensors, which the fast path takes.
        warnings.simplefilter("ignore")
        objective = Objective(model, F.cross_entropy, sentences())
        assert torch.backends.mha.get_fastpath_enabled()
        assert float(objective.loss()) == pytest.approx(float(objective.gradient()[0]))
        assert sharpness(objective, 0.0).value == 0
        exact = hessian_by_differences(objective)
    found = sharpness(objective, 1e-4).value
    _, g = objective.gradient()
    slope = float(torch.cat([x.flatten() for x in g]).norm())
    assert found == pytest.approx(1e-4 * slope, rel=0.01)
    top = float(torch.linalg.eigvalsh((exact + exact.T) / 2)[-1])
    assert eigenvalues(objective, 1, tol=1e-6).value == pytest.approx(top, rel=1e-4)
    assert eigenvalues(objective, 1, matrix="ggn").value > 0


def test_a_monitor_inside_of_autocast_sees_the_weights_move() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 3).eval()
    data = [(x.float(), y) for x, y in batches()]
    with torch.autocast("cpu", torch.bfloat16):
        objective = Objective(model, F.cross_entropy, data, forward=as_it_is)
        record = Monitor(objective, rho=0.5)(0)
    assert record is not None
    assert record["sharpness"] > 0.01


def test_a_process_without_data_has_nothing_that_could_not_be_replaced() -> None:
    objective = objective_of(Listed())
    objective.data = []
    assert not Curvature(objective, "ggn")(torch.ones(72).double()).any()


class Recomputing(nn.Module):
    """Computes its first layer again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5).double(), nn.Linear(5, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        return self.last(checkpoint(self.first, x, use_reentrant=True))


@pytest.mark.parametrize("measure", [sharpness, eigenvalues])
def test_reentrant_checkpoints_are_refused(measure: Any) -> None:
    """torch takes the parameters within for unused, and their gradients for zero."""
    objective = objective_of(Recomputing())
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        measure(objective, 1)

"""Curvature against matrices that are known, torch.func and curvlinops."""

import math
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.diagnostics import (
    Eigenvalues,
    Objective,
    eigenvalues,
    spectral_density,
    trace,
)
from flatmin.diagnostics._products import Curvature, Matrix
from tests.diagnostics.problems import (
    batches,
    classifier,
    hessian_of,
    no_trace,
    regression,
    top,
    two_layers,
    whole,
)
from tests.problems import Noisy, Odd, Tied, mlp, untouched

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import curvlinops

    # The first use of forward mode warns of torch itself.
    torch.func.hessian(torch.sum)(torch.ones(2))


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_of_a_linear_regression_it_is_twice_the_covariance(matrix: Matrix) -> None:
    _, objective, exact = regression()
    torch.testing.assert_close(whole(objective, matrix), exact, rtol=1e-12, atol=1e-14)
    found = eigenvalues(objective, 4, matrix=matrix, tol=1e-10)
    assert list(found.values) == top(exact, 4)
    measured = trace(objective, matrix=matrix)
    assert measured.value == pytest.approx(float(exact.trace()), rel=1e-12)
    assert measured.error is None


@pytest.mark.parametrize("model_of", [two_layers, mlp, lambda: Noisy().double().eval()])
def test_of_a_network_it_is_that_of_torch(model_of: Any) -> None:
    model, objective = classifier(model=model_of())
    exact = hessian_of(model)
    torch.testing.assert_close(
        whole(objective, "hessian"), exact, rtol=1e-9, atol=1e-12
    )
    assert list(eigenvalues(objective, 5, tol=1e-9).values) == top(exact, 5)


def test_it_is_that_of_curvlinops() -> None:
    model, objective = classifier()
    loss, w, data = nn.CrossEntropyLoss(), objective.w, batches()
    for name, kind in (
        ("hessian", curvlinops.HessianLinearOperator),
        ("ggn", curvlinops.GGNLinearOperator),
    ):
        other = kind(model, loss, w, data)
        curvature = Curvature(objective, name)  # pyright: ignore
        v = torch.randn(len(curvature.like)).double()
        torch.testing.assert_close(curvature(v), other @ v, rtol=1e-10, atol=1e-13)


def test_gauss_newton_has_no_negative_eigenvalues_and_the_hessian_has() -> None:
    _, objective = classifier()
    assert torch.linalg.eigvalsh(whole(objective, "hessian"))[0] < -1e-3
    assert torch.linalg.eigvalsh(whole(objective, "ggn"))[0] > -1e-12


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_frozen_tied_and_unused_parameters_and_dictionaries(matrix: Matrix) -> None:
    model = Tied().double()
    model.head.weight.requires_grad_(False)
    model.unused = nn.Parameter(torch.ones(2).double())
    named = [{"x": x, "y": y} for x, y in batches()]
    objective = Objective(
        model, F.cross_entropy, named, forward=lambda m, b: (m(b["x"]), b["y"])
    )
    ours = whole(objective, matrix)
    torch.testing.assert_close(ours, ours.T, rtol=1e-9, atol=1e-13)
    assert len(ours) == 36 + 3 + 2
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    sizes = [p.numel() for p in objective.w]
    start = sum(sizes[: names.index("unused")])
    assert (ours[start : start + 2] == 0).all()
    if matrix == "hessian":
        model.unused.requires_grad_(False)
        kept = [i for i in range(len(ours)) if not start <= i < start + 2]
        exact = hessian_of(model)
        torch.testing.assert_close(ours[kept][:, kept], exact, rtol=1e-9, atol=1e-12)


def test_odd_shapes_are_no_problem() -> None:
    _, objective = classifier(model=Odd().double())
    assert math.isfinite(eigenvalues(objective, 2).value)


def test_a_loss_without_curvature_has_eigenvalues_of_zero() -> None:
    model = nn.Linear(3, 1).double()
    data = [(torch.randn(4, 3).double(), torch.zeros(4, 1).double())]
    objective = Objective(model, lambda out, _: out.mean(), data)
    assert eigenvalues(objective, 4).values == (0.0,) * 4
    assert trace(objective).value == 0
    assert spectral_density(objective).value == 0
    assert sum(spectral_density(objective).smooth()[1]) > 0


def test_every_eigenvalue_counts_as_often_as_it_occurs() -> None:
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(20, 4, generator=draw).double()
    model = nn.Linear(4, 3, bias=False).double()
    data = [(x, torch.zeros(20, 3).double())]
    objective = Objective(model, F.mse_loss, data)
    # Each of the three outputs has the same curvature.
    exact = torch.block_diag(*[2 * x.T @ x / 60] * 3)
    assert list(eigenvalues(objective, 7, tol=1e-8).values) == top(exact, 7)
    assert list(eigenvalues(objective, 12, tol=1e-8).values) == top(exact, 12)


def diagonal(values: Tensor) -> Objective:
    """A quadratic with these eigenvalues."""
    d = len(values)
    model = nn.Linear(d, 1, bias=False).double()
    x = torch.diag((values.double() * d / 2).sqrt())
    return Objective(model, F.mse_loss, [(x, torch.zeros(d, 1).double())])


@pytest.mark.parametrize("d", [2, 3, 300])
@pytest.mark.parametrize("top", [1.01, 1.05, 3.0])
@pytest.mark.parametrize("tol", [1e-3, 0.03])
def test_one_eigenvalue_above_a_cluster_is_found(
    d: int, top: float, tol: float
) -> None:
    objective = diagonal(torch.tensor([*[1.0] * (d - 1), top]))
    for seed in range(3):
        measured = eigenvalues(objective, 1, tol=tol, seed=seed)
        assert measured.value == pytest.approx(top, rel=1e-6)


def test_one_eigenvalue_above_neighbours_is_found() -> None:
    neighbours = 1 + 5e-4 * torch.linspace(-1, 1, 399)
    objective = diagonal(torch.cat([neighbours, torch.tensor([1.01])]))
    for seed in range(3):
        measured = eigenvalues(objective, 1, seed=seed)
        assert measured.value == pytest.approx(1.01, rel=1e-4)


def test_another_default_device_changes_nothing() -> None:
    _, objective = classifier()
    expected = eigenvalues(objective, 3), spectral_density(objective)
    with torch.device("meta"):
        found = eigenvalues(objective, 3), spectral_density(objective)
    assert found == expected


def test_the_largest_eigenvalue_is_not_the_largest_in_size() -> None:
    class Saddle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(4).double())

        def forward(self) -> Tensor:
            slopes = torch.tensor([-9.0, 0.5, 1.0, 2.0]).double()
            return (slopes * self.w**2).sum() / 2

    objective = Objective(
        Saddle(),
        lambda out, _: out.mean(),
        [torch.zeros(2).double()],
        forward=lambda m, x: (m() + x, x),
    )
    assert eigenvalues(objective, 1).value == pytest.approx(2)
    assert list(eigenvalues(objective, 3).values) == pytest.approx([2, 1, 0.5])


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-6])
def test_residuals_are_those_of_the_vectors_and_bound_the_error(
    k: int, tol: float
) -> None:
    model, objective = classifier()
    found = eigenvalues(objective, k, tol=tol, vectors=True)
    curvature, exact = Curvature(objective, "hessian"), hessian_of(model)
    spectrum_of = torch.linalg.eigvalsh(exact)
    assert found.vectors is not None
    for value, residual, vector in zip(
        found.values, found.residuals, found.vectors, strict=True
    ):
        assert [x.shape for x in vector] == [p.shape for p in model.parameters()]
        x = curvature.flat(vector)
        torch.testing.assert_close(x.norm(), torch.ones(()).double())
        true = float((exact @ x - value * x).norm())
        assert true <= residual * (1 + 1e-6) + 1e-12
        assert residual <= tol * abs(value) + 1e-12
        assert float((spectrum_of - value).abs().min()) <= residual + 1e-12


def test_lambda_max_takes_no_more_products_than_power_iteration() -> None:
    model, objective = classifier()
    exact = float(torch.linalg.eigvalsh(hessian_of(model))[-1])
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    with model.register_forward_pre_hook(count):
        found = eigenvalues(objective, 1, tol=0.03)
    products = passes // 3
    assert abs(found.value - exact) < 1e-3 * exact
    curvature = Curvature(objective, "hessian")
    v = torch.randn(
        len(curvature.like), generator=torch.Generator().manual_seed(0)
    ).double()
    for _ in range(products):
        v = curvature(v / v.norm())
    power = float(v @ curvature(v) / (v @ v))
    assert abs(found.value - exact) <= abs(power - exact)


def test_no_convergence_is_said() -> None:
    _, objective = classifier()
    with pytest.raises(RuntimeError, match=r"3 eigenvalues have not converged .*1e-09"):
        eigenvalues(objective, 3, tol=1e-9, most=4)


def test_the_ratio_is_of_the_first_and_fifth() -> None:
    _, objective = classifier()
    found = eigenvalues(objective, 5)
    assert found.ratio == found.values[0] / found.values[4]
    with pytest.raises(ValueError, match=r"needs k >= 5, got 2"):
        _ = eigenvalues(objective, 2).ratio


def test_a_ratio_to_what_is_not_positive_is_no_number() -> None:
    values = (1.0, 0.5, 0.2, 0.1, -0.1)
    found = Eigenvalues(name="", value=1.0, n=1, values=values, residuals=values)
    assert math.isnan(found.ratio)


def test_float32_weights_are_measured_to_their_precision() -> None:
    torch.manual_seed(1)
    model = mlp()
    exact = hessian_of(model)
    narrow = mlp(torch.float32)
    narrow.load_state_dict(model.state_dict())
    data = [(x.float(), y) for x, y in batches()]
    objective = Objective(narrow, F.cross_entropy, data)
    found = eigenvalues(objective, 5, tol=1e-12)
    expected = torch.linalg.eigvalsh(exact).flip(0)[:5].tolist()
    assert list(found.values) == pytest.approx(expected, rel=1e-4)


def test_attention_has_second_derivatives() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.inner(x).unsqueeze(1).repeat(1, 4, 1).unsqueeze(1)
            return self.head(F.scaled_dot_product_attention(y, y + 1, y)[:, 0, 0])

    for matrix in ("hessian", "ggn"):
        _, objective = classifier(model=Attends().double())
        assert math.isfinite(eigenvalues(objective, 1, matrix=matrix).value)


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
@pytest.mark.parametrize(
    "measure",
    [
        lambda *a, **k: eigenvalues(*a, **k, k=2),
        lambda *a, **k: trace(*a, **k, draws=2),
        lambda *a, **k: spectral_density(*a, **k, steps=2, draws=2),
    ],
)
def test_nothing_of_the_model_changes(measure: Any, matrix: Matrix) -> None:
    model, objective = classifier(model=Noisy().double().eval())
    with no_trace(model), untouched(model):
        measure(objective, matrix=matrix)


def test_nothing_has_changed_after_an_exception() -> None:
    model, objective = classifier(model=Noisy().double().eval())

    def explode(*_: object) -> None:
        raise OSError("pulled the plug")

    model.register_forward_pre_hook(explode)
    with no_trace(model), untouched(model), pytest.raises(OSError, match="plug"):
        eigenvalues(objective)


def test_the_seed_decides_the_draws() -> None:
    _, objective = classifier()
    first, again, other = (trace(objective, draws=5, seed=k).value for k in (1, 1, 2))
    assert first == again
    assert first != other


def test_impossible_arguments_are_refused() -> None:
    _, objective, _ = regression()
    with pytest.raises(ValueError, match=r"there are 4 weights .*, got k=5"):
        eigenvalues(objective, 5)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        eigenvalues(objective, 0)
    with pytest.raises(TypeError, match="k must be a whole number"):
        eigenvalues(objective, 1.0)  # pyright: ignore
    with pytest.raises(ValueError, match=r"tol is relative and below 1, got 1"):
        eigenvalues(objective, 1, tol=1)
    with pytest.raises(ValueError, match="tol must be at least 0"):
        eigenvalues(objective, 1, tol=-1)
    with pytest.raises(ValueError, match="matrix is 'hessian' or 'ggn', got 'fisher'"):
        trace(objective, matrix="fisher")  # pyright: ignore
    with pytest.raises(ValueError, match="draws must be at least 2, got 1"):
        trace(objective, draws=1)
    with pytest.raises(ValueError, match="draws must be at least 2, got 1"):
        spectral_density(objective, draws=1)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        spectral_density(objective, steps=0)


def test_complex_weights_are_refused() -> None:
    model = nn.ParameterList([torch.ones(2, dtype=torch.complex64)])
    objective = Objective(
        model,
        lambda out, _: out.mean(),
        [torch.zeros(2)],
        forward=lambda _, x: (model[0].abs() + x, x),
    )
    with pytest.raises(ValueError, match="curvature needs real weights"):
        eigenvalues(objective, 1)


def test_a_missing_curvlinops_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _, objective, _ = regression()
    monkeypatch.setitem(sys.modules, "curvlinops.ggn", None)
    with pytest.raises(ImportError, match=r'curvlinops: pip install "flatmin\[diag'):
        eigenvalues(objective, 1, matrix="ggn")


SILENT = """
import torch
from flatmin.diagnostics import Objective, eigenvalues
x, y = torch.randn(8, 2), torch.zeros(8, 1)
objective = Objective(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss, [(x, y)])
eigenvalues(objective, 1)
assert not any(name.startswith("curvlinops") for name in __import__("sys").modules)
eigenvalues(objective, 1, matrix="ggn")
"""


def test_curvlinops_is_loaded_late_and_without_warnings() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", SILENT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

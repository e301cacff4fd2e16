"""The trace and the distribution of all eigenvalues."""

import json
import math
import warnings

import pytest
import torch
from torch import Tensor

from flatmin.diagnostics import (
    eigenvalues,
    spectral_density,
    spectrum,
    trace,
)
from flatmin.diagnostics._products import Matrix
from tests.diagnostics.problems import (
    classifier,
    hessian_of,
    regression,
    whole,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")

    # The first use of forward mode warns of torch itself.
    torch.func.hessian(torch.sum)(torch.ones(2))


def test_the_estimated_trace_is_within_its_error() -> None:
    model, objective = classifier()
    exact = hessian_of(model)
    measured = trace(objective, draws=60)
    assert measured.error is not None
    assert abs(measured.value - float(exact.trace())) < 4 * measured.error
    # The variance of z'Hz for signs z.
    off = exact - torch.diag(exact.diag())
    variance = 2 * float(off.square().sum())
    assert measured.error == pytest.approx(math.sqrt(variance / 60), rel=0.35)


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_a_density_has_the_moments_of_its_starts(matrix: Matrix) -> None:
    _, objective = classifier()
    exact = whole(objective, matrix)
    density = spectral_density(objective, matrix=matrix, steps=8, draws=3, seed=2)
    nodes = torch.tensor(density.nodes, dtype=torch.float64)
    mass = torch.tensor(density.weights, dtype=torch.float64)
    assert len(nodes) == 24
    assert float(mass.sum()) == pytest.approx(1)
    draw = torch.Generator().manual_seed(2)
    starts: list[Tensor] = []
    for _ in range(3):
        v = torch.randn(len(exact), generator=draw, dtype=torch.float64)
        starts.append(v / v.norm())
    power = torch.eye(len(exact)).double()
    for j in range(16):
        expected = sum(float(v @ power @ v) for v in starts) / 3
        assert float(mass @ nodes**j) == pytest.approx(expected, rel=1e-6, abs=1e-12)
        power = power @ exact


def test_a_density_with_as_many_steps_as_weights_has_the_eigenvalues() -> None:
    _, objective, exact = regression()
    density = spectral_density(objective, steps=40, draws=2)
    nodes = torch.tensor(density.nodes, dtype=torch.float64).view(4, 2)
    torch.testing.assert_close(nodes[:, 0], torch.linalg.eigvalsh(exact))
    torch.testing.assert_close(nodes[:, 1], torch.linalg.eigvalsh(exact))


def test_a_smooth_density_integrates_to_one() -> None:
    _, objective = classifier()
    density = spectral_density(objective, steps=10, draws=2)
    for width in (None, 0.5):
        x, y = density.smooth(4000, width)
        assert float(torch.trapezoid(y, x)) == pytest.approx(1, abs=3e-3)
        mean = float(torch.trapezoid(x * y, x))
        assert mean == pytest.approx(density.value, abs=5e-3)


def test_figure_3_has_its_three_numbers() -> None:
    _, objective = classifier()
    measured = spectrum(objective, steps=10, draws=2)
    alone = eigenvalues(objective, 5)
    assert measured.value == alone.value
    assert measured.ratio == alone.ratio
    assert measured.density == spectral_density(objective, steps=10, draws=2)
    assert f"lambda_max / lambda_5 {alone.ratio:.4g}" in repr(measured)
    kept = json.loads(json.dumps(measured.to_dict(), allow_nan=False))
    assert kept["eigenvalues"]["values"] == list(alone.values)
    assert "vectors" not in kept["eigenvalues"]

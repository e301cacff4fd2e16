"""Directions against their definitions, and PCA against scikit-learn's."""

from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin.diagnostics import Objective, directions, landscape
from tests.diagnostics.problems import quadratic, regression
from tests.problems import batch, mlp


def objective_of(model: nn.Module, dtype: torch.dtype = torch.float64) -> Objective:
    return Objective(model.eval(), cross_entropy, [batch(dtype)])


def convnet() -> nn.Sequential:
    """Every kind of parameter that moves, or does not."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)),
        nn.Conv1d(1, 4, 3),
        nn.BatchNorm1d(4),
        nn.LayerNorm([4, 4]),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).double()


def flat(d: list[Tensor]) -> Tensor:
    return torch.cat([x.detach().flatten() for x in d])


def weights_of(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {name: p.detach() for name, p in mlp().named_parameters()}


def test_filters_have_the_length_of_the_weights_filters_and_the_rest_stays() -> None:
    model = convnet()
    d = directions.random(objective_of(model), seed=3)
    moved = dict(zip(dict(model.named_parameters()), d, strict=True))
    for name in ("1.weight", "5.weight"):
        w = model.get_parameter(name)
        torch.testing.assert_close(
            moved.pop(name).flatten(1).norm(dim=1), w.flatten(1).norm(dim=1)
        )
    assert sorted(moved) == sorted(
        ["1.bias", "2.weight", "2.bias", "3.weight", "3.bias", "5.bias"]
    )
    assert not any(x.any() for x in moved.values())


def aligned(a: Tensor, b: Tensor) -> Tensor:
    """``a`` or ``-a``, whichever is nearer to ``b``."""
    return a * (a @ b).sign()


@pytest.mark.parametrize("k", [1, 3])
def test_eigenvectors_are_those_of_the_whole_matrix(k: int) -> None:
    model, objective, h = regression()
    found = directions.eigenvectors(objective, k, tol=1e-9)
    assert len(found) == k
    vectors = torch.linalg.eigh(h).eigenvectors.flip(1)
    for d, wanted in zip(found, vectors.T, strict=False):
        assert [x.shape for x in d] == [p.shape for p in model.parameters()]
        torch.testing.assert_close(aligned(flat(d), wanted), wanted)


def test_the_loss_of_a_quadratic_along_eigenvectors_has_their_eigenvalues() -> None:
    model, objective = quadratic()
    u, v = directions.eigenvectors(objective, tol=1e-9)
    first, second = torch.linalg.eigvalsh(model.a).flip(0)[:2].tolist()
    w = model.w.detach()
    plane = landscape.plane(objective, u, v, a=[-1, 0, 2])
    slopes = [float(flat(d) @ model.a @ w) for d in (u, v)]
    for row, b in zip(plane.losses, plane.b, strict=True):
        for loss, a in zip(row, plane.a, strict=True):
            bent = (first * a**2 + second * b**2) / 2
            expected = float(model.loss(w)) + slopes[0] * a + slopes[1] * b + bent
            assert loss == pytest.approx(expected)


def test_eigenvectors_are_repeatable_and_keep_the_dtypes_of_the_weights() -> None:
    objective = objective_of(mlp(torch.float32), torch.float32)
    one, other = (directions.eigenvectors(objective, seed=3) for _ in range(2))
    for x, y in zip(one, other, strict=True):
        assert torch.equal(flat(x), flat(y))
        assert {t.dtype for t in x} == {torch.float32}
        assert flat(x).norm().item() == pytest.approx(1, rel=1e-6)
    assert abs(float(flat(one[0]) @ flat(one[1]))) < 1e-5


def test_more_eigenvectors_than_weights_are_refused() -> None:
    _, objective = quadratic(3)
    with pytest.raises(ValueError, match="k"):
        directions.eigenvectors(objective, 4)


def test_filters_of_zeros_stay() -> None:
    model = mlp()
    with torch.no_grad():
        next(model.parameters())[2] = 0
    d = directions.random(objective_of(model), seed=0)
    assert not d[0][2].any()
    assert d[0][1].any()


def test_one_seed_draws_the_same_for_two_networks_and_two_seeds_do_not() -> None:
    one, two = objective_of(mlp()), objective_of(mlp())
    plain = [directions.random(o, 5, by_filter=False) for o in (one, two)]
    assert torch.equal(flat(plain[0]), flat(plain[1]))
    narrow = objective_of(mlp(torch.float32), torch.float32)
    single = flat(directions.random(narrow, 5, by_filter=False))
    torch.testing.assert_close(single, flat(plain[0]).float())
    assert not torch.equal(flat(plain[0]), flat(directions.random(one, 6)))


def test_the_draws_are_of_standard_deviation_one_without_normalisation() -> None:
    model = nn.Sequential(nn.Linear(6, 2000), nn.Linear(2000, 3)).double()
    w = directions.random(objective_of(model), 0, by_filter=False)[0]
    assert float(w.std()) == pytest.approx(1, abs=0.03)


def test_a_random_direction_draws_from_no_global_stream() -> None:
    objective = objective_of(mlp())
    before = torch.get_rng_state()
    directions.random(objective, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["module", "state dict", "list"])
def test_between_is_the_difference(kind: str) -> None:
    objective, other = objective_of(mlp()), mlp()
    given = {
        "module": other,
        "state dict": other.state_dict(),
        "list": list(other.parameters()),
    }[kind]
    d = directions.between(objective, given)
    for p, x, q in zip(objective.w, d, other.parameters(), strict=True):
        torch.testing.assert_close(p + x, q, rtol=0, atol=1e-15)


def test_another_architecture_is_refused() -> None:
    objective = objective_of(mlp())
    with pytest.raises(ValueError, match=r"has no 2\.weight, 2\.bias"):
        directions.between(objective, nn.Sequential(nn.Linear(6, 8)))
    with pytest.raises(ValueError, match="one tensor per parameter"):
        directions.between(objective, list(nn.Linear(6, 3).parameters()))


def test_the_plane_through_three_models_holds_them() -> None:
    objective = objective_of(mlp())
    first, second = weights_of(1), weights_of(2)
    basis = directions.through(objective, first, second)
    u, v = flat(basis.u), flat(basis.v)
    gram = torch.stack([u, v]) @ torch.stack([u, v]).T
    torch.testing.assert_close(gram, torch.eye(2).double(), rtol=0, atol=1e-14)
    w = flat(list(objective.w))
    for (a, b), model in zip(basis.coordinates, (first, second), strict=True):
        torch.testing.assert_close(w + a * u + b * v, flat(list(model.values())))
    assert basis.coordinates[0][1] == pytest.approx(0, abs=1e-14)


def test_models_on_a_line_are_refused() -> None:
    objective = objective_of(mlp())
    d = directions.random(objective, 0)
    ahead = [p + x for p, x in zip(objective.w, d, strict=True)]
    further = [p - 2 * x for p, x in zip(objective.w, d, strict=True)]
    with pytest.raises(ValueError, match="parallel"):
        directions.through(objective, ahead, further)
    with pytest.raises(ValueError, match="zero"):
        directions.through(objective, list(objective.w), further)


def test_principal_components_are_those_of_scikit_learn() -> None:
    objective = objective_of(mlp())
    states = [weights_of(seed) for seed in range(6)]
    basis = directions.trajectory_pca(objective, states)
    x = torch.stack([flat(list(state.values())) for state in states])
    second_opinion = PCA(2).fit(x.numpy())
    ours = torch.stack([flat(basis.u), flat(basis.v)])
    theirs = torch.from_numpy(second_opinion.components_)
    torch.testing.assert_close(
        (ours @ theirs.T).abs(), torch.eye(2).double(), rtol=0, atol=1e-10
    )
    assert basis.shares == pytest.approx(
        second_opinion.explained_variance_ratio_, rel=1e-10
    )
    w = flat(list(objective.w))
    torch.testing.assert_close(
        torch.tensor(basis.coordinates), ((x - w) @ ours.T).float()
    )


def test_a_trajectory_in_a_plane_has_all_its_variance_there() -> None:
    objective = objective_of(mlp())
    u, v = (directions.random(objective, seed) for seed in (0, 1))
    at = [(0.0, 0.0), (1.0, 0.5), (2.0, -1.0), (-1.0, 3.0)]
    states = [
        [p + a * x + b * y for p, x, y in zip(objective.w, u, v, strict=True)]
        for a, b in at
    ]
    basis = directions.trajectory_pca(objective, states)
    assert basis.shares is not None
    assert sum(basis.shares) == pytest.approx(1, abs=1e-12)


def test_too_short_or_straight_trajectories_are_refused() -> None:
    objective = objective_of(mlp())
    with pytest.raises(ValueError, match="at least 3 states, got 2"):
        directions.trajectory_pca(objective, [weights_of(0), weights_of(1)])
    d = directions.random(objective, 0)
    line = [[p + a * x for p, x in zip(objective.w, d, strict=True)] for a in (0, 1, 3)]
    with pytest.raises(ValueError, match="lie on a line"):
        directions.trajectory_pca(objective, line)


def half_frozen() -> Objective:
    model = mlp()
    next(model.parameters()).requires_grad_(False)
    return objective_of(model)


@pytest.mark.parametrize("kind", ["module", "state dict"])
def test_a_model_with_other_frozen_weights_is_refused(kind: str) -> None:
    objective, other = half_frozen(), mlp()
    given = other if kind == "module" else other.state_dict()
    with pytest.raises(ValueError, match=r"differs in 0\.weight, frozen here"):
        directions.between(objective, given)
    with pytest.raises(ValueError, match="frozen here"):
        directions.through(objective, given, given)
    with pytest.raises(ValueError, match="frozen here"):
        directions.trajectory_pca(objective, [given] * 3)


def test_frozen_weights_that_are_alike_or_left_out_are_fine() -> None:
    objective, other = half_frozen(), mlp().state_dict()
    moving = {name: x for name, x in other.items() if name != "0.weight"}
    alike = {**moving, "0.weight": objective.model.state_dict()["0.weight"].float()}
    objective.model.float()
    expected = [x - p for x, p in zip(moving.values(), objective.w, strict=True)]
    for given in (moving, alike):
        torch.testing.assert_close(
            directions.between(objective, given), expected, check_dtype=False
        )
    with pytest.raises(ValueError, match="frozen here"):
        directions.between(objective, {**moving, "0.weight": torch.zeros(2)})


def test_tensors_may_come_one_by_one() -> None:
    objective, other = objective_of(mlp()), mlp()
    expected = directions.between(objective, other)
    found = directions.between(objective, other.parameters())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    line = landscape.line(objective, (x for x in expected), a=(1.0,))  # pyright: ignore
    assert line.losses == landscape.line(objective, expected, a=(1.0,)).losses
    states = [weights_of(seed) for seed in range(3)]
    basis = directions.trajectory_pca(objective, iter(states))
    assert len(basis.coordinates) == 3


def test_names_of_wrappers_do_not_count() -> None:
    objective, other = objective_of(mlp()), mlp()
    expected = directions.between(objective, other)
    inside = objective_of(nn.DataParallel(mlp()))
    compiled = {f"_orig_mod.module.{k}": x for k, x in other.state_dict().items()}
    for given in (nn.DataParallel(other), compiled):
        found = directions.between(objective, given)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        for p, x, q in zip(
            inside.w,
            directions.between(inside, given),
            other.parameters(),
            strict=True,
        ):
            torch.testing.assert_close(p + x, q, rtol=0, atol=1e-15)
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    with pytest.raises(ValueError, match=r"has no 0\.weight"):
        directions.between(objective, mixed)
    with pytest.raises(ValueError, match=r"has no 0\.weight"):
        directions.between(objective, {})


class Complex(nn.Module):
    """A complex layer before a real one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(6, 4, dtype=torch.complex128))
        self.last = nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last((x.to(torch.complex128) @ self.first).abs())


def test_complex_weights_have_complex_directions() -> None:
    torch.manual_seed(0)
    objective = objective_of(Complex())
    d = directions.random(objective, 0)[0]
    w = objective.w[0].detach()
    torch.testing.assert_close(d.norm(dim=1), w.norm(dim=1))
    assert d.real.abs().min() > 0
    assert d.imag.abs().min() > 0
    raw = directions.random(objective, 0, by_filter=False)[0]
    assert float(raw.abs().square().mean()) == pytest.approx(1, abs=0.5)

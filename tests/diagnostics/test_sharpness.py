"""One-step, worst-case and average sharpness against what defines them."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.core import (
    LpBall,
    PerLayer,
    Step,
    TwoPoint,
    Unnormalised,
    filters,
    scales,
)
from flatmin.diagnostics import (
    Objective,
    average_sharpness,
    m_sharpness,
    normalised,
    sharpness,
    worst_sharpness,
)
from tests.diagnostics.problems import (
    ADAPTIVE,
    RHO,
    batches,
    classifier,
    loss_of_weights,
    no_bias,
    no_trace,
    points,
    quadratic,
    weights,
    with_biases,
)
from tests.problems import Noisy, untouched
from tests.reference import sharpness as reference
from tests.reference.sam import perturbation

SCALED = [
    sharpness,
    lambda *a, **k: worst_sharpness(*a, **k, steps=5),
    lambda *a, **k: average_sharpness(*a, **k, draws=5),
]
NORMS = filters.within(nn.LayerNorm)


def rescaled(model: nn.Sequential, a: float) -> nn.Sequential:
    other = no_bias()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other[0].weight.mul_(a)  # pyright: ignore
        other[2].weight.div_(a)  # pyright: ignore
    return other


@pytest.mark.parametrize("p", [1.0, 1.01, 1.5, 2.0, 3.0, 50.0, 1e6, math.inf])
def test_one_step_on_a_quadratic_is_its_closed_form(p: float) -> None:
    model, objective = quadratic()
    w = model.w.detach()
    (eps,) = perturbation([model.a @ w], p, RHO)
    expected = eps @ model.a @ w + eps @ model.a @ eps / 2
    measured = sharpness(objective, RHO, p=p)
    assert measured.value == pytest.approx(float(expected), rel=1e-12)
    assert measured.error is None
    assert measured.settings == {"rho": RHO, "p": p}


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
def test_one_step_on_a_network_equals_the_reference(p: float) -> None:
    model, objective = classifier()
    loss, w = loss_of_weights(model, batches()), weights(model)
    expected = reference.one_step(loss, w, RHO, p)
    assert sharpness(objective, RHO, p=p).value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("p", [1.5, 2.0, math.inf])
def test_adaptive_one_step_equals_the_reference(p: float) -> None:
    model, objective = classifier(model=no_bias())
    loss, w = loss_of_weights(model, batches()), weights(model)
    within = TwoPoint(scale=scales.Adaptive(0), metric=LpBall(p))
    expected = reference.adaptive_one_step(loss, w, RHO, p)
    measured = sharpness(objective, RHO, within=within)
    assert measured.value == pytest.approx(expected, rel=1e-10)
    assert measured.settings["scale"] == "Adaptive(eta=0)"
    magnitude = TwoPoint(scale=scales.Magnitude(), metric=LpBall(p))
    model, objective = classifier(model=with_biases())
    loss, w = loss_of_weights(model, batches()), weights(model)
    expected = reference.adaptive_one_step(loss, w, RHO, p)
    measured = sharpness(objective, RHO, within=magnitude)
    assert measured.value == pytest.approx(expected, rel=1e-10)
    assert measured.settings["scale"] == "Magnitude(eta=0.0)"


def test_a_filter_decides_what_moves() -> None:
    class Bowl(nn.Module):
        """A norm layer's weights and others, each with a slope of 1."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(4).double()
            self.rest = nn.Parameter(torch.ones(5).double())

        def forward(self) -> Tensor:
            return self.norm.weight.sum() + self.norm.bias.sum() + self.rest.sum()

    objective = Objective(
        Bowl(),
        lambda out, _: out.mean(),
        [torch.zeros(2).double()],
        forward=lambda m, x: (m() + x, x),
    )
    # 8 entries of 13 move, each by rho / sqrt(8).
    measured = sharpness(objective, RHO, within=TwoPoint(filter=NORMS))
    assert measured.value == pytest.approx(RHO * math.sqrt(8), rel=1e-12)
    assert measured.settings["filter"] == "within"
    worst = worst_sharpness(objective, RHO, within=TwoPoint(filter=NORMS))
    assert worst.value == pytest.approx(RHO * math.sqrt(8), rel=1e-12)
    with points(objective) as seen:
        average_sharpness(objective, RHO, draws=2, within=TwoPoint(filter=NORMS))
    assert [len(eps) for eps in seen] == [8, 8]


def test_a_filter_by_entries_holds_for_draws_and_ascents_too() -> None:
    def first_half(step: Step, g: list[Tensor | None]) -> list[Tensor | None]:
        keep = torch.tensor([1.0, 1, 0, 0, 0]).double()
        return [None if x is None else x * keep for x in g]

    _, objective = quadratic()
    within = TwoPoint(filter=first_half)
    with points(objective) as seen:
        average_sharpness(objective, RHO, draws=3, within=within)
        worst_sharpness(objective, RHO, steps=5, within=within)
    assert len(seen) == 9
    for eps in seen:
        assert (eps[:2] != 0).all()
        assert (eps[2:] == 0).all()


def test_a_radius_of_zero_gives_zero() -> None:
    _, objective = quadratic()
    assert sharpness(objective, 0).value == 0
    assert worst_sharpness(objective, 0, steps=2).value == 0
    assert average_sharpness(objective, 0, draws=2).value == 0


def test_at_a_minimum_one_step_is_zero() -> None:
    model, objective = quadratic()
    with torch.no_grad():
        model.w.zero_()
    assert sharpness(objective, RHO).value == 0


def test_average_on_a_quadratic_is_half_the_scaled_trace() -> None:
    model, objective = quadratic()
    measured = average_sharpness(objective, RHO, draws=4000)
    expected = RHO**2 / 5 * float(model.a.trace()) / 2
    assert measured.error is not None
    assert abs(measured.value - expected) < 4 * measured.error
    # The variance of g'e + e'Ae / 2 for normal e.
    s, g = RHO / math.sqrt(5), model.a @ model.w.detach()
    variance = s**2 * g.square().sum() + s**4 * model.a.square().sum() / 2
    assert measured.error == pytest.approx(math.sqrt(variance / 4000), rel=0.1)
    assert repr(measured).endswith("(rho 0.3, 4000 draws, seed 0; n = 3)")


def test_draws_have_the_expected_length_in_units_of_the_scale() -> None:
    model, objective = classifier(model=no_bias())
    w = torch.cat([p.flatten() for p in weights(model)])
    for within, unit in ((TwoPoint(), torch.ones_like(w)), (ADAPTIVE, w)):
        with points(objective) as seen:
            average_sharpness(objective, RHO, draws=400, within=within)
        mean = torch.stack([(eps / unit).square().sum() for eps in seen]).mean()
        assert math.sqrt(mean) == pytest.approx(RHO, rel=0.02)


def test_the_seed_decides_the_draws() -> None:
    _, objective = quadratic()
    first, again, other = (
        average_sharpness(objective, RHO, draws=5, seed=k).value for k in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("a", [0.1, 10.0])
@pytest.mark.parametrize("measure", SCALED)
def test_rescaled_layers_have_the_same_adaptive_sharpness_and_another_plain_one(
    measure: Any, a: float
) -> None:
    model = no_bias()
    _, one = classifier(model=model)
    _, two = classifier(model=rescaled(model, a))
    torch.testing.assert_close(one.loss(), two.loss(), rtol=1e-12, atol=0)
    adaptive = [measure(o, 0.5, within=ADAPTIVE).value for o in (one, two)]
    plain = [measure(o, 0.5, within=TwoPoint()).value for o in (one, two)]
    assert adaptive[0] == pytest.approx(adaptive[1], rel=1e-8)
    assert plain[0] != pytest.approx(plain[1], rel=0.05)


@pytest.mark.parametrize("a", [0.1, 10.0])
@pytest.mark.parametrize("ball", [LpBall(), LpBall(math.inf), LpBall(3.0)], ids=str)
@pytest.mark.parametrize(
    "measure", [*SCALED, lambda *a, **k: m_sharpness(*a, m=2, **k)]
)
def test_rescaled_layers_with_biases_have_the_same_sharpness_in_units_of_magnitude(
    measure: Any, ball: LpBall, a: float
) -> None:
    model, other = with_biases(), with_biases()
    with torch.no_grad():
        other[0].weight.mul_(a)  # pyright: ignore
        other[0].bias.mul_(a)  # pyright: ignore
        other[2].weight.div_(a)  # pyright: ignore
    objectives = [classifier(model=each)[1] for each in (model, other)]
    within = TwoPoint(scale=scales.Magnitude(), metric=ball)
    one, two = (measure(each, 0.5, within=within).value for each in objectives)
    assert one == pytest.approx(two, rel=1e-9)
    authors = TwoPoint(scale=scales.Adaptive(0), metric=ball)
    one, two = (measure(each, 0.5, within=authors).value for each in objectives)
    assert one != pytest.approx(two, rel=1e-3)


def test_the_papers_radius_is_a_standard_deviation() -> None:
    model, objective = quadratic()
    sigma, w = 0.2, model.w.detach()
    draw = torch.Generator().manual_seed(0)
    eps = [
        sigma * torch.randn(5, generator=draw, dtype=torch.float64) for _ in range(9)
    ]
    rises = [float(model.loss(w + e) - model.loss(w)) for e in eps]
    measured = average_sharpness(objective, sigma * math.sqrt(5), draws=9)
    assert measured.value == pytest.approx(sum(rises) / 9, rel=1e-12)
    # E[e'Ae] / 2, which at the same rho is d times ours.
    theirs = sigma**2 * float(model.a.trace()) / 2
    many = average_sharpness(objective, sigma * math.sqrt(5), draws=4000)
    assert many.error is not None
    assert abs(many.value - theirs) < 4 * many.error


def test_weights_without_extent_do_not_count_in_the_length_of_a_draw() -> None:
    model = with_biases()
    with torch.no_grad():
        model[0].weight[:4] = 0  # pyright: ignore
    _, objective = classifier(model=model)
    w = torch.cat([p.flatten() for p in weights(model)])
    within = TwoPoint(scale=scales.Magnitude())
    with points(objective) as seen:
        average_sharpness(objective, RHO, draws=400, within=within)
    moving = w != 0
    assert all((eps[~moving] == 0).all() for eps in seen)
    squares = [(eps[moving] / w[moving]).square().sum() for eps in seen]
    assert math.sqrt(torch.stack(squares).mean()) == pytest.approx(RHO, rel=0.02)


def test_normalised_logits_are_those_of_the_formula() -> None:
    model = no_bias()

    def forward(module: nn.Module, one: Any) -> tuple[Tensor, Tensor]:
        return module(one[0]), one[1]

    def objective_of(module: nn.Module) -> Objective:
        return Objective(
            module, F.cross_entropy, batches(), forward=normalised(forward)
        )

    x, y = batches(24, 24)[0]
    expected = F.cross_entropy(reference.normalised(model(x)), y)
    torch.testing.assert_close(
        objective_of(model).loss(), expected.detach(), rtol=1e-12, atol=0
    )
    larger = no_bias()
    larger.load_state_dict(model.state_dict())
    with torch.no_grad():
        larger[2].weight.mul_(7)  # pyright: ignore
    torch.testing.assert_close(
        objective_of(model).loss(), objective_of(larger).loss(), rtol=1e-12, atol=0
    )
    adaptive = [
        sharpness(objective_of(m), RHO, within=ADAPTIVE).value for m in (model, larger)
    ]
    assert adaptive[0] == pytest.approx(adaptive[1], rel=1e-9)


MEASURES = [
    sharpness,
    lambda *a, **k: worst_sharpness(*a, **k, steps=2),
    lambda *a, **k: average_sharpness(*a, **k, draws=2),
]


@pytest.mark.parametrize("measure", MEASURES)
def test_nothing_of_the_model_changes(measure: Any) -> None:
    model, objective = classifier(model=Noisy().double().eval())
    with no_trace(model), untouched(model):
        measure(objective, RHO)


@pytest.mark.parametrize("measure", MEASURES)
def test_nothing_has_changed_after_an_exception(measure: Any) -> None:
    model, objective = classifier(model=Noisy().double().eval())
    calls = 0

    def explode(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OSError("pulled the plug")

    model.register_forward_pre_hook(explode)
    with no_trace(model), untouched(model), pytest.raises(OSError, match="plug"):
        measure(objective, RHO)


def test_what_is_no_ball_is_refused() -> None:
    _, objective = quadratic()
    with pytest.raises(TypeError, match=r"needs LpBall or PerLayer.*Unnormalised\(\)"):
        worst_sharpness(objective, within=TwoPoint(metric=Unnormalised()))
    with pytest.raises(TypeError, match=r"within must be a .*TwoPoint, .*int"):
        sharpness(objective, within=3)  # pyright: ignore
    with pytest.raises(ValueError, match="give either p or within, not both"):
        sharpness(objective, p=1.0, within=TwoPoint())
    with pytest.raises(ValueError, match=r"p must be in \[1, inf\]"):
        sharpness(objective, p=0.5)


def test_a_metric_that_is_no_common_ball_is_named() -> None:
    _, objective = quadratic()
    measured = sharpness(objective, within=TwoPoint(metric=PerLayer(LpBall())))
    assert measured.settings["ball"] == "PerLayer(ball=LpBall(p=2.0))"


def test_a_filter_that_leaves_nothing_is_refused() -> None:
    _, objective = quadratic()

    def nothing(step: Step, g: list[Tensor | None]) -> list[Tensor | None]:
        del step
        return [None] * len(g)

    with pytest.raises(ValueError, match="filter nothing leaves no parameter"):
        sharpness(objective, within=TwoPoint(filter=nothing))
    with pytest.raises(ValueError, match="the filter matches no parameter"):
        sharpness(objective, within=TwoPoint(filter=NORMS))


@pytest.mark.parametrize("rho", [-0.1, math.inf, math.nan])
@pytest.mark.parametrize("measure", MEASURES)
def test_an_impossible_radius_is_refused(measure: Any, rho: float) -> None:
    with pytest.raises(ValueError, match="rho must be finite and >= 0"):
        measure(quadratic()[1], rho)


def test_impossible_counts_are_refused() -> None:
    _, objective = quadratic()
    with pytest.raises(ValueError, match="draws must be at least 2, got 1"):
        average_sharpness(objective, draws=1)
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        worst_sharpness(objective, steps=-1)
    with pytest.raises(ValueError, match="step_size must be finite and >= 0"):
        worst_sharpness(objective, step_size=-1.0)


def test_a_radius_that_makes_the_loss_infinite_is_refused() -> None:
    _, objective = quadratic()
    with pytest.raises(ValueError, match=r"loss is inf at a point .* radius 1e"):
        sharpness(objective, 1e200)


def test_a_slope_that_is_not_finite_is_refused() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2).double())

        def forward(self, x: Tensor) -> Tensor:
            return x + self.w.norm().sqrt()

    objective = Objective(
        Root(),
        lambda out, _: out.mean(),
        [torch.ones(3).double()],
        forward=lambda m, x: (m(x), x),
    )
    with pytest.raises(ValueError, match="gradient is infinite or NaN"):
        sharpness(objective)

"""One step in closed form, and what it reports."""

import math

import pytest
import torch
from torch.nn import functional as F

from flatmin import SAM, Probe, subset_sam
from flatmin.core import Ask, LpBall, Program, Step
from tests.problems import (
    Noisy,
    Quadratic,
    Scripted,
    batch,
    descend,
    gradient,
    loss_of,
    mlp,
    passes,
    sam_steps,
    two_layers,
)

RHOS = [1e-6, 0.05, 0.5, 10.0]


def sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize("rho", RHOS)
def test_a_step_on_a_quadratic_is_the_closed_form(rho: float) -> None:
    model = Quadratic()
    expected = model.w.detach() - 0.1 * model.sam_gradient(rho)
    optimizer = SAM(sgd(model), model, rho=rho)
    descend(optimizer, model)
    optimizer.step()
    off = (model.w.detach() - expected).norm() / expected.norm()
    assert off < 1e-12


@pytest.mark.parametrize("rho", RHOS)
def test_statistics_on_a_quadratic_are_the_closed_form(rho: float) -> None:
    model = Quadratic()
    optimizer = SAM(sgd(model), model, rho=rho, track=True)
    w, a = model.w.detach().clone(), model.a
    g = a @ w
    v = w + rho * g / g.norm()
    descend(optimizer, model)
    found = optimizer.statistics
    assert found.passes == 2
    assert found.loss is not None
    assert found.perturbed_loss is not None
    assert found.grad_norm is not None
    assert found.cosine is not None
    assert found.loss.item() == pytest.approx(model.loss(w).item(), rel=1e-13)
    climbed = (model.loss(v) - model.loss(w)).item()
    assert found.perturbed_loss.item() == pytest.approx(model.loss(v).item(), rel=1e-13)
    assert optimizer.sharpness is not None
    assert optimizer.sharpness.item() == pytest.approx(climbed, rel=1e-7)
    assert found.grad_norm.item() == pytest.approx(g.norm().item(), rel=1e-13)
    cosine = torch.cosine_similarity(g, a @ v, dim=0).item()
    assert found.cosine.item() == pytest.approx(cosine, abs=1e-14)


@pytest.mark.parametrize(("p", "q"), [(1, math.inf), (1.5, 3), (math.inf, 1)])
def test_the_reported_norm_is_the_dual_one(p: float, q: float) -> None:
    model = Quadratic()
    optimizer = SAM(sgd(model), model, p=p)
    expected = torch.linalg.vector_norm(model.a @ model.w.detach(), q).item()
    descend(optimizer, model)
    assert optimizer.statistics.grad_norm is not None
    assert optimizer.statistics.grad_norm.item() == pytest.approx(expected, rel=1e-13)


def test_statistics_are_unknown_before_the_first_step() -> None:
    model = Quadratic()
    optimizer = SAM(sgd(model), model)
    found = optimizer.statistics
    known = (found.loss, found.perturbed_loss, found.grad_norm, found.cosine)
    assert known == (None, None, None, None)
    assert found.passes == 0
    assert optimizer.sharpness is None


def test_losses_are_unknown_unless_the_loop_sets_them() -> None:
    model = Quadratic()
    optimizer = SAM(sgd(model), model)
    for probe in optimizer.probes():
        assert probe.loss is None
        model().backward()
    assert optimizer.statistics.loss is None
    assert optimizer.statistics.perturbed_loss is None
    assert optimizer.sharpness is None
    assert optimizer.statistics.cosine is None


def test_statistics_keep_no_graph_and_may_be_given_a_float() -> None:
    model = Quadratic()
    optimizer = SAM(sgd(model), model)
    for probe in optimizer.probes():
        loss = model()
        loss.backward()
        probe.loss = loss if probe.index == 0 else 2.5
    assert optimizer.statistics.loss is not None
    assert not optimizer.statistics.loss.requires_grad
    assert optimizer.statistics.perturbed_loss == 2.5


def test_losses_written_into_one_tensor_are_told_apart() -> None:
    model, place = Quadratic(), torch.zeros((), dtype=torch.float64)
    optimizer = SAM(sgd(model), model, rho=1.0)
    clean = model().item()
    for probe in optimizer.probes():
        loss = model()
        loss.backward()
        place.copy_(loss.detach())
        probe.loss = place
    assert optimizer.statistics.loss == clean
    assert optimizer.sharpness is not None
    assert optimizer.sharpness > 0


def test_probes_say_where_they_stand() -> None:
    model = Quadratic()
    optimizer = SAM(sgd(model), model)
    seen: list[Probe] = []
    for probe in optimizer.probes():
        seen.append(probe)
        model().backward()
    assert [probe.index for probe in seen] == [0, 1]
    assert [probe.perturbed for probe in seen] == [False, True]
    assert list(map(repr, seen)) == ["Probe(0, at w)", "Probe(1, at w + eps)"]


def test_take_gives_everything_unless_the_method_says_less() -> None:
    x, y = batch()
    model = mlp(torch.float32)
    optimizer = SAM(sgd(model), model)
    for probe in optimizer.probes():
        assert probe.take(x) is x
        assert probe.take(x, y) == (x, y)
        F.cross_entropy(model(x), y).backward()


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_pass_says_whether_it_wants_a_part(share: float) -> None:
    x, y = batch()
    model = mlp(torch.float32)
    optimizer = subset_sam(sgd(model), model, share=share)
    found: list[bool] = []
    for probe in optimizer.probes():
        found.append(probe.wants_part)
        a, b = probe.take(x, y)
        F.cross_entropy(model(a), b).backward()
    assert found == [share < 1, False]


def test_take_refuses_unequal_lengths_and_nothing() -> None:
    model = Quadratic()
    optimizer = SAM(sgd(model), model)
    for probe in optimizer.probes():
        with pytest.raises(ValueError, match=r"common first axis, got \[3, 4\]"):
            probe.take(torch.ones(3), torch.ones(4))
        with pytest.raises(ValueError, match=r"common first axis, got \[\]"):
            probe.take()
        model().backward()


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_steps_without_a_climb_are_counted_and_plain(bad: float) -> None:
    model = Quadratic()
    optimizer = SAM(sgd(model), model)
    assert optimizer.unperturbed_steps == 0
    for broken in (False, True, True, False):
        expected = model.sam_gradient(0.0 if broken else 0.05)
        for probe in optimizer.probes():
            model().backward()
            if broken and probe.index == 0:
                gradient(model.w).mul_(bad)
        torch.testing.assert_close(gradient(model.w), expected, rtol=1e-13, atol=1e-14)
        optimizer.step()
    assert optimizer.unperturbed_steps == 2


@pytest.mark.parametrize("norm_over", ["model", "group"])
def test_a_radius_per_group(norm_over: str) -> None:
    model, data = two_layers(), batch(torch.float64)
    radii = [0.25, 0.5]
    groups = [
        {"params": [*layer.parameters()], "sam_rho": r}
        for layer, r in zip(model, radii, strict=True)
    ]
    optimizer = SAM(torch.optim.SGD(groups, lr=0.1), model, norm_over=norm_over)  # pyright: ignore[reportArgumentType]
    w = [p.detach().clone() for p in model.parameters()]
    loss_of(model, data).backward()
    g = [gradient(p).clone() for p in model.parameters()]
    optimizer.zero_grad()
    if norm_over == "model":
        norms = [torch.cat([d.flatten() for d in g]).norm()] * 2
    else:
        norms = [torch.cat([d.flatten() for d in g[k : k + 2]]).norm() for k in (0, 2)]
    moved = []
    for probe in optimizer.probes():
        if probe.perturbed:
            moved = [p.detach().clone() for p in model.parameters()]
        loss_of(model, data).backward()
    for i in range(4):
        eps = radii[i // 2] * g[i] / norms[i // 2]
        torch.testing.assert_close(moved[i], w[i] + eps, rtol=1e-13, atol=1e-14)


def test_a_group_of_radius_zero_stays_where_it_is() -> None:
    model, data = two_layers(), batch(torch.float64)
    groups = [
        {"params": [*model[0].parameters()], "sam_rho": 0.0},
        {"params": [*model[1].parameters()]},
    ]
    optimizer = SAM(torch.optim.SGD(groups, lr=0.1), model, norm_over="group")
    w = [p.detach().clone() for p in model.parameters()]
    for probe in optimizer.probes():
        same = [torch.equal(p, t) for p, t in zip(model.parameters(), w, strict=True)]
        assert same == [True, True, not probe.perturbed, not probe.perturbed]
        loss_of(model, data).backward()


def test_only_groups_of_radius_zero_have_a_gradient() -> None:
    model = two_layers()
    groups = [
        {"params": [*model[0].parameters()], "sam_rho": 0.0},
        {"params": [*model[1].parameters()]},
    ]
    optimizer = SAM(torch.optim.SGD(groups, lr=0.1), model)
    perturbed = []
    for probe in optimizer.probes():
        perturbed.append(probe.perturbed)
        model[0](torch.ones(2, 6).double()).sum().backward()
    assert perturbed == [False, False]
    optimizer.step()


def test_sharpness_of_a_network_is_the_difference_of_its_losses() -> None:
    model, data = mlp(), batch(torch.float64)
    optimizer = SAM(sgd(model), model)
    losses = []
    for probe in optimizer.probes():
        probe.loss = loss_of(model, data)
        losses.append(probe.loss)
        loss_of(model, data).backward()
    assert optimizer.sharpness == losses[1] - losses[0]


def test_cosine_ignores_parameters_without_both_gradients() -> None:
    model = torch.nn.Linear(2, 1).double()
    optimizer = SAM(sgd(model), model, track=True)
    for probe in optimizer.probes():
        model(torch.tensor([[1.0, 2.0 + probe.index]]).double()).sum().backward()
        if probe.index == 0:
            model.bias.grad = None
    expected = (1 + 2 * 3) / math.sqrt(5 * 10)
    assert optimizer.statistics.cosine is not None
    assert optimizer.statistics.cosine.item() == pytest.approx(expected, abs=1e-15)


def test_cosine_is_unknown_if_no_parameter_has_both_gradients() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = SAM(sgd(model), model, track=True)
    for probe in optimizer.probes():
        part = model.weight if probe.index == 0 else model.bias
        part.sum().backward()
    assert optimizer.statistics.cosine is None


def test_an_autocast_region_around_the_loop_sees_the_perturbed_weights() -> None:
    model, data = mlp(torch.float32), batch()
    optimizer = SAM(sgd(model), model, rho=5.0)
    with torch.autocast("cpu", torch.bfloat16):
        clean = loss_of(model, data).item()
        passes(optimizer, model, data)
        after = loss_of(model, data).item()
    around = optimizer.sharpness
    optimizer.zero_grad()
    for probe in optimizer.probes():
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, data)
        loss.backward()
        probe.loss = loss
    assert around is not None
    assert around == optimizer.sharpness
    assert around > 0.1
    assert after == clean


def test_the_method_is_in_the_representation() -> None:
    model = Noisy()
    optimizer = SAM(sgd(model), model, p=1.5)
    assert repr(optimizer).startswith("SAM(TwoPoint(source=<function fresh")
    assert "LpBall(p=1.5)" in repr(optimizer)
    assert "base=SGD (" in repr(optimizer)
    sam_steps(optimizer, model, batch(), 1)


def test_a_program_that_holds_on_to_its_perturbation_finds_it_unchanged() -> None:
    distances: list[torch.Tensor] = []

    def twice(step: Step) -> Program:
        g = yield Ask()
        ascent = LpBall()(step.w, [d for d in g if d is not None], [0.1], [0])
        yield Ask(ascent)
        return (yield Ask(ascent))

    model = Quadratic()
    w = model.w.detach().clone()
    for _ in SAM(sgd(model), model, method=Scripted(twice)).probes():
        distances.append((model.w.detach() - w).norm())
        model().backward()
    torch.testing.assert_close(
        torch.stack(distances), torch.tensor([0, 0.1, 0.1], dtype=torch.float64)
    )

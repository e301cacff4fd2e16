"""Statistics are those of the method's perturbation: an oracle walks the passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin import SAM
from flatmin.methods import METHODS
from flatmin.optim import Statistics
from tests.methods.table import NAMES, TRAITS, built, data_of, index_of, whole
from tests.problems import Noisy, Quadratic, descend

every_method = pytest.mark.parametrize("name", NAMES)

#: Which of the passes away from ``w`` is at ``w + eps``, where they are not all there.
PERTURBATION = {
    # On this side of w, and not on the other.
    "cr_sam": 0,
    # At w + rho h; the first and the last are a short way up from w and from there.
    "gam": 1,
    # At the end of the climb.
    "multi_step_sam": -1,
    # One step ahead is no perturbation.
    "sampa": 0,
    # After the draw from the posterior.
    "bsam": -1,
}


@dataclass(frozen=True, eq=False)
class Pass:
    """What one pass saw; ``g`` is empty if it had no backward pass."""

    eps: Tensor
    x: Tensor
    loss: Tensor
    g: Tensor
    ascended: bool

    @property
    def away(self) -> bool:
        return bool(self.eps.any())


def flat(xs: Any) -> Tensor:
    return torch.cat([torch.empty(0), *(x.detach().flatten() for x in xs)])


def walked(optimizer: SAM, model: nn.Module) -> list[Pass]:
    """The passes of a step."""
    w, seen = flat(model.parameters()), list[Pass]()
    torch.manual_seed(index_of(optimizer))
    for probe in optimizer.probes():
        x, y = probe.take(*data_of(index_of(optimizer)))
        eps = flat(model.parameters()) - w
        losses = F.cross_entropy(model(x), y, reduction="none")
        probe.backward(whole(probe, losses))
        probe.loss = losses.mean()
        g = flat(p.grad for p in model.parameters() if p.grad is not None)
        seen.append(Pass(eps, x, losses.mean().detach(), g, probe.ascended))
    return seen


def loss_among(passes: list[Pass]) -> Pass | None:
    """The first pass that saw all examples, or else the first."""
    return next((p for p in passes if len(p.x) == 12), next(iter(passes), None))


def at_eps(name: str, passes: list[Pass]) -> list[Pass]:
    """The passes at ``w + eps``."""
    away = [p for p in passes if p.away]
    if name in PERTURBATION and away:
        return [away[PERTURBATION[name]]]
    assert all(torch.equal(p.eps, away[0].eps) for p in away)
    return away


def same_loss(one: Pass | None, passes: list[Pass]) -> Tensor | None:
    """The loss at ``w`` of the examples that this pass has seen."""
    if one is None:
        return None
    return next((p.loss for p in passes if torch.equal(p.x, one.x)), None)


def cosine(at_w: list[Pass], above: list[Pass]) -> float | None:
    first = next((p.g for p in at_w if len(p.g)), None)
    last = next((p.g for p in reversed(above) if len(p.g)), None)
    if first is None or last is None:
        return None
    return float(F.cosine_similarity(first, last, dim=0))


def check(found: Statistics, name: str, passes: list[Pass]) -> None:
    at_w, above = [p for p in passes if not p.away], at_eps(name, passes)
    clean, perturbed = loss_among(at_w), loss_among(above)
    same = same_loss(perturbed, at_w)
    assert [p for p in passes if p.ascended] == above
    assert found.passes == len(passes)
    assert found.loss == (clean and clean.loss)
    assert found.perturbed_loss == (perturbed and perturbed.loss)
    assert found.sharpness == (
        None if perturbed is None or same is None else perturbed.loss - same
    )
    length = float(above[0].eps.norm()) if above else None
    assert found.eps_norm == (length and pytest.approx(length, abs=1e-9))
    cos = cosine(at_w, above)
    assert found.cosine == (cos and pytest.approx(cos, abs=1e-9))
    assert (found.grad_norm is None) == (not above)


@every_method
def test_statistics_are_those_of_w_and_of_the_perturbation(name: str) -> None:
    torch.manual_seed(0)
    model = Noisy().double()
    optimizer = built(name, model, track=True)
    for _ in range(8):
        passes = walked(optimizer, model)
        check(optimizer.statistics, name, passes)
        optimizer.step()
    assert optimizer.unperturbed_steps == 0


@every_method
def test_only_where_no_pass_is_at_w_is_its_loss_unknown(name: str) -> None:
    torch.manual_seed(0)
    model = Noisy().double()
    optimizer = built(name, model)
    known: list[bool] = []
    for _ in range(8):
        walked(optimizer, model)
        known.append(optimizer.statistics.loss is not None)
        optimizer.step()
    assert all(known) != TRAITS[name].skips_w


def test_the_length_of_eps_is_not_measured_unasked() -> None:
    model = Noisy().double()
    optimizer = built("sam", model)
    walked(optimizer, model)
    assert optimizer.statistics.eps_norm is None
    assert optimizer.statistics.cosine is None


def bowl(name: str, **options: Any) -> tuple[SAM, Quadratic]:
    model = Quadratic()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = METHODS[name].build(base, model, rho=0.3, track=True, **options)
    descend(optimizer, model)
    return optimizer, model


def close(found: Tensor | None, expected: Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["sam", "cr_sam"])
def test_sharpness_is_the_rise_uphill_and_not_on_the_other_side(name: str) -> None:
    optimizer, model = bowl(name)
    w = model.w.detach()
    g = model.a @ w
    above = w + 0.3 * g / g.norm()
    close(optimizer.sharpness, model.loss(above) - model.loss(w))
    close(optimizer.statistics.grad_norm, g.norm())
    close(optimizer.statistics.eps_norm, torch.tensor(0.3, dtype=torch.float64))


def test_a_probe_says_where_it_stands() -> None:
    model = Quadratic()
    optimizer = METHODS["cr_sam"].build(
        torch.optim.SGD(model.parameters(), lr=0.1), model
    )
    places: list[str] = []
    for probe in optimizer.probes():
        places.append(repr(probe))
        model().backward()
    assert places == [
        "Probe(0, at w)",
        "Probe(1, at w + eps)",
        "Probe(2, at another point)",
    ]


def test_the_perturbation_of_gam_is_along_the_change_of_the_gradient() -> None:
    optimizer, model = bowl("gam", slope_rho=0.02)
    w = model.w.detach()
    g0 = model.a @ w
    h = model.a @ (w + 0.02 * g0 / g0.norm()) - g0
    above = w + 0.3 * h / h.norm()
    close(optimizer.sharpness, model.loss(above) - model.loss(w))
    close(optimizer.statistics.grad_norm, h.norm())
    close(optimizer.statistics.eps_norm, torch.tensor(0.3, dtype=torch.float64))
    g2 = model.a @ above
    close(optimizer.statistics.cosine, g0 @ g2 / g0.norm() / g2.norm())


def test_the_perturbation_of_many_steps_is_where_the_last_one_ends() -> None:
    optimizer, model = bowl("multi_step_sam", k=2)
    w = model.w.detach()
    g = model.a @ w
    up = model.a @ (w + 0.3 * g / g.norm())
    eps = g / g.norm() + up / up.norm()
    above = w + 0.3 * eps / eps.norm()
    close(optimizer.sharpness, model.loss(above) - model.loss(w))
    close(optimizer.statistics.grad_norm, up.norm())

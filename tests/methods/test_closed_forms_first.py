"""Symmetries of methods, and what they do where a gradient is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatmin.methods as of
from flatmin import SAM
from flatmin.core import TwoPoint, scales
from tests.problems import Quadratic, batch, descend, gradient, loss_of

DATA = batch(torch.float64)


def displacements(
    optimizer: SAM, model: nn.Module, loss: Callable[[], Tensor]
) -> dict[str, Tensor]:
    """By name, how far from ``w`` the last pass of a step was."""
    w = {name: p.detach().clone() for name, p in model.named_parameters()}
    found: dict[str, Tensor] = {}
    for _ in optimizer.probes():
        found = {name: p.detach() - w[name] for name, p in model.named_parameters()}
        loss().backward()
    return found


def norm(xs: Any) -> float:
    return float(torch.cat([x.reshape(-1) for x in xs]).norm())


def relu_net(c: float) -> nn.Sequential:
    """The same function for every c."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)
    ).double()
    with torch.no_grad():
        for i, factor in ((0, c), (2, 1 / c)):
            model.get_submodule(str(i)).get_parameter("weight").mul_(factor)
    return model


def logits_after(
    c: float, build: Callable[..., SAM], **options: Any
) -> tuple[Tensor, Tensor]:
    """At ``w + eps``, and after a step with rates that scale as the layers do."""
    model, lr = relu_net(c), 0.1
    groups = [
        {"params": model[0].parameters(), "lr": lr * c**2},
        {"params": model[2].parameters(), "lr": lr / c**2},
    ]
    base = torch.optim.SGD(groups, momentum=0.9)
    optimizer = build(base, model, rho=0.3, **options)
    away = torch.empty(0)
    for _ in range(3):
        for _ in optimizer.probes():
            away = model(DATA[0]).detach()
            loss_of(model, DATA).backward()
        optimizer.step()
    return away, model(DATA[0]).detach()


@pytest.mark.parametrize("c", [0.1, 3.0, 64.0])
def test_asam_sees_one_net_in_all_scalings_of_its_layers(c: float) -> None:
    plain, scaled = logits_after(1.0, of.asam, eta=0.0), logits_after(c, of.asam, eta=0)
    for a, b in zip(plain, scaled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_sam_sees_another_net_in_every_scaling_of_its_layers() -> None:
    (away, after), (away_3, after_3) = logits_after(1.0, SAM), logits_after(3.0, SAM)
    assert float((away - away_3).abs().max()) > 0.01
    assert float((after - after_3).abs().max()) > 0.01


def test_asam_has_one_unit_for_what_is_no_weight() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)).double()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    g = dict(zip(dict(model.named_parameters()), _gradients(model), strict=True))
    eps = displacements(
        of.asam(base, model, rho=0.5, eta=0.01), model, lambda: loss_of(model, DATA)
    )
    w = dict(model.named_parameters())
    t = {n: p.detach().abs() + 0.01 if "weight" in n else 1.0 for n, p in w.items()}
    size = norm([t[name] * g[name] for name in g])
    for name in g:
        expected = 0.5 * t[name] ** 2 * g[name] / size
        torch.testing.assert_close(eps[name], expected, rtol=1e-10, atol=1e-12)


def test_the_scale_of_asam_is_one_for_a_parameter_of_another_name() -> None:
    model, method = Quadratic(), TwoPoint(scale=scales.Adaptive(0.01))
    exactly(descended(SAM, model, 0.3, method=method), model.sam_gradient(0.3))


def _gradients(model: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss_of(model, DATA), list(model.parameters()))


def descended(
    build: Callable[..., SAM], model: Quadratic, rho: float, **options: Any
) -> Tensor:
    base = torch.optim.SGD(model.parameters(), lr=0.05)
    optimizer = build(base, model, rho=rho, **options)
    descend(optimizer, model)
    return gradient(model.w)


def pair_of(model: Quadratic, rho: float) -> tuple[Tensor, Tensor]:
    return model.a @ model.w.detach(), model.sam_gradient(rho)


def exactly(mine: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rho", [0.01, 0.5])
def test_usam_on_a_quadratic(rho: float) -> None:
    model = Quadratic()
    w = model.w.detach()
    exactly(descended(of.usam, model, rho), model.a @ (w + rho * model.a @ w))


@pytest.mark.parametrize("alpha", [0.3, 1.7])
def test_gnp_on_a_quadratic_is_the_slope_of_loss_and_norm(alpha: float) -> None:
    model, rho = Quadratic(), 0.2
    w = model.w.detach().clone().requires_grad_()
    norm_of_slope = (model.a @ w).norm()
    [expected] = torch.autograd.grad(model.loss(w) + alpha * rho * norm_of_slope, w)
    exactly(descended(of.gnp, model, rho, alpha=alpha), expected)


@pytest.mark.parametrize("alpha", [0.01, 0.9])
def test_gsam_on_a_quadratic(alpha: float) -> None:
    model = Quadratic()
    g, ge = pair_of(model, 0.4)
    unit = ge / ge.norm()
    away = g - (g @ unit) * unit
    mine = descended(of.gsam, model, 0.4, alpha=alpha)
    exactly(mine, ge - alpha * away)
    assert float((mine - ge) @ ge) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rho", [0.05, 3.0])
def test_stable_sam_on_a_quadratic_has_the_length_of_the_gradient(rho: float) -> None:
    model = Quadratic()
    g, ge = pair_of(model, rho)
    mine = descended(of.stable_sam, model, rho)
    exactly(mine, ge * g.norm() / ge.norm())
    exactly(mine.norm(), g.norm())


@pytest.mark.parametrize("gamma", [0.2, 0.9])
def test_wsam_on_a_quadratic_makes_the_same_step_in_both_forms(gamma: float) -> None:
    odds = gamma / (1 - gamma)
    for build in (of.wsam, of.coupled_wsam):
        model = Quadratic()
        g, ge = pair_of(model, 0.3)
        w = model.w.detach().clone()
        base = torch.optim.SGD(model.parameters(), lr=0.05)
        optimizer = build(base, model, rho=0.3, gamma=gamma)
        descend(optimizer, model)
        expected = g if build is of.wsam else g + odds * (ge - g)
        exactly(gradient(model.w), expected)
        optimizer.step()
        exactly(model.w.detach(), w - 0.05 * (g + odds * (ge - g)))


def test_sagm_on_a_quadratic() -> None:
    model, alpha = Quadratic(), 0.02
    w = model.w.detach()
    g = model.a @ w
    eps = (0.3 / g.norm() - alpha) * g
    exactly(descended(of.sagm, model, 0.3, alpha=alpha), g + model.a @ eps / 2)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("rho", [0.3, 3.0])
def test_momentum_sam_stands_against_the_momentum(kind: str, rho: float) -> None:
    model = Quadratic()
    base = (
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        if kind == "sgd"
        else torch.optim.AdamW(model.parameters(), lr=0.05)
    )
    optimizer = of.momentum_sam(base, model, rho=rho)
    assert norm(displacements(optimizer, model, model).values()) == 0
    optimizer.step()
    for _ in range(5):
        name = "momentum_buffer" if kind == "sgd" else "exp_avg"
        v = base.state[model.w][name].clone()
        eps = displacements(optimizer, model, model)
        torch.testing.assert_close(
            eps["w"], -rho * v / v.norm(), rtol=1e-12, atol=1e-14
        )
        optimizer.step()


def test_momentum_sam_looks_where_the_next_step_of_sgd_goes() -> None:
    model = Quadratic()
    base = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    optimizer = of.momentum_sam(base, model, rho=1e-3)
    descend(optimizer, model)
    optimizer.step()
    w = model.w.detach().clone()
    eps = displacements(optimizer, model, model)["w"]
    optimizer.step()
    assert float(F.cosine_similarity(eps, model.w.detach() - w, dim=0)) > 0.99


@pytest.mark.parametrize("rho", [0.03, 2.0])
def test_layer_sam_moves_each_parameter_by_a_share_of_its_length(rho: float) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    w = {name: p.detach().clone() for name, p in model.named_parameters()}
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    eps = displacements(
        of.layer_sam(base, model, rho=rho), model, lambda: loss_of(model, DATA)
    )
    for (name, e), g in zip(eps.items(), _gradients(model), strict=True):
        length = rho * float(w[name].norm())
        assert math.isclose(float(e.norm()), length, rel_tol=1e-12)
        torch.testing.assert_close(
            e, length * g / g.norm(), rtol=1e-10, atol=1e-12 * length
        )


def test_layer_sam_leaves_a_parameter_of_zeros() -> None:
    model = nn.Linear(6, 3).double()
    nn.init.zeros_(model.bias)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    eps = displacements(
        of.layer_sam(base, model, rho=0.1), model, lambda: loss_of(model, DATA)
    )
    assert not eps["bias"].any()
    assert eps["weight"].any()


class Calibration(nn.BatchNorm1d):
    """A norm layer whose name does not say so."""


class Normless(nn.Module):
    """No norm layer, though its name and that of its weight say so."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.norm_weight


def normed() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        nn.Tanh(),
        nn.LayerNorm(8),
        nn.GroupNorm(2, 8),
        nn.Unflatten(1, (2, 4)),
        nn.InstanceNorm1d(2, affine=True),
        nn.Flatten(),
        nn.RMSNorm(8),
        Calibration(8),
        Normless(),
        nn.Linear(8, 3),
    ).double()


def test_sam_on_moves_all_norm_layers_and_nothing_else() -> None:
    model = normed()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    expected = {
        *(f"{i}.{part}" for i in (1, 3, 4, 6, 9) for part in ("weight", "bias")),
        "8.weight",
    }
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    eps = displacements(
        of.sam_on(base, model, rho=2.0), model, lambda: loss_of(model, DATA)
    )
    assert {name for name, e in eps.items() if e.any()} == expected
    assert math.isclose(norm(eps.values()), 2.0, rel_tol=1e-12)
    g = dict(zip(eps, _gradients(model), strict=True))
    size = norm([g[name] for name in expected])
    for name in expected:
        torch.testing.assert_close(
            eps[name], 2.0 * g[name] / size, rtol=1e-9, atol=1e-12
        )


def test_gcsam_moves_and_descends_without_the_mean_of_each_row() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    eps = displacements(
        of.gcsam(base, model, rho=0.5), model, lambda: loss_of(model, DATA)
    )
    assert math.isclose(norm(eps.values()), 0.5, rel_tol=1e-12)
    for name, p in model.named_parameters():
        if p.dim() == 2:
            for x in (eps[name], gradient(p)):
                assert float(x.mean(1).abs().max()) < 1e-15

"""Methods of many gradients against their formulas, and in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin import SAM
from flatmin.methods import cr_sam, gam, multi_step_sam, second_order_sam
from tests.methods.against import ONE, STEPS, TWO, Pair, batch_of, pair_of
from tests.problems import Batch, Quadratic, batch, gradient
from tests.reference import points

GROUPS = pytest.mark.parametrize("groups", [ONE, TWO], ids=["one", "two"])
#: A group may stay where it is.
STILL = ((1.0, 0.0), (1e-3, 0.05))
RADII = pytest.mark.parametrize(
    "groups", [ONE, TWO, STILL], ids=["one", "two", "one stays"]
)
KINDS = pytest.mark.parametrize("kind", ["sgd", "adamw"])


def compare(pair: Pair, optimizer: SAM, rule: points.Rule) -> None:
    for k in range(STEPS):
        x, y = batch_of(k)
        for probe in optimizer.probes():
            probe.backward(F.cross_entropy(pair.net(x), y))
        optimizer.step()
    pair.check(points.descend(pair.losses, pair.start, pair.reference, rule), {})


@RADII
@KINDS
@pytest.mark.parametrize(("rho", "k"), [(0.1, 1), (0.1, 2), (0.3, 3), (0.05, 7)])
def test_multi_step_sam_equals_its_formula(
    groups: Any, kind: str, rho: float, k: int
) -> None:
    pair = pair_of(kind, groups, rho)
    optimizer = multi_step_sam(pair.base, pair.net, rho=rho, k=k)
    compare(pair, optimizer, points.multi_step_sam(pair.rhos, k))


@RADII
@KINDS
@pytest.mark.parametrize("rho", [0.01, 0.1, 0.5])
def test_second_order_sam_is_the_gradient_of_its_objective(
    groups: Any, kind: str, rho: float
) -> None:
    pair = pair_of(kind, groups, rho)
    optimizer = second_order_sam(pair.base, pair.net, rho=rho)
    compare(pair, optimizer, points.second_order_sam(pair.rhos))


@GROUPS
@KINDS
@pytest.mark.parametrize(
    ("rho", "gamma", "beta"), [(0.1, 0.1, 0.1), (0.3, 0.5, 0.0), (0.2, 0.0, 0.4)]
)
def test_cr_sam_equals_its_formula(
    groups: Any, kind: str, rho: float, gamma: float, beta: float
) -> None:
    pair = pair_of(kind, groups, rho)
    optimizer = cr_sam(pair.base, pair.net, rho=rho, gamma=gamma, beta=beta)
    compare(pair, optimizer, points.cr_sam(pair.rhos, gamma, beta))


@GROUPS
@KINDS
@pytest.mark.parametrize(
    ("rho", "slope_rho", "mixture"),
    [
        (0.2, 0.02, (0.6, 0.5, 0.03)),
        (0.1, 0.05, (0.1, 0.9, 0.5)),
        (0.05, 0.2, (1.0, 0.0, 0.1)),
    ],
)
def test_gam_equals_its_formula(
    groups: Any,
    kind: str,
    rho: float,
    slope_rho: float,
    mixture: tuple[float, float, float],
) -> None:
    pair = pair_of(kind, groups, rho)
    alpha, beta, gamma = mixture
    weights: dict[str, Any] = {"alpha": alpha, "beta": beta, "gamma": gamma}
    optimizer = gam(pair.base, pair.net, rho=rho, slope_rho=slope_rho, **weights)
    short = [slope_rho for _ in pair.rhos]
    compare(pair, optimizer, points.gam(pair.rhos, short, alpha, beta, gamma))


def descended(build: Any, **options: float) -> tuple[Tensor, Tensor, Tensor]:
    """What a method descends on a quadratic, and A and w."""
    model = Quadratic()
    optimizer = build(torch.optim.SGD(model.parameters(), lr=0.1), model, **options)
    for probe in optimizer.probes():
        probe.backward(model())
    return gradient(model.w), model.a, model.w.detach()


def unit(x: Tensor) -> Tensor:
    return x / x.norm()


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("rho", [0.01, 0.3, 3.0])
def test_second_order_sam_on_a_quadratic(rho: float) -> None:
    v, a, w = descended(second_order_sam, rho=rho)
    leaf = w.clone().requires_grad_()
    there = leaf + rho * unit(a @ leaf)
    close(v, torch.autograd.grad(there @ a @ there / 2, leaf)[0])
    # The same by hand: the derivative of u = g/||g|| is (1 - uu')A / ||g||.
    g = a @ w
    u, g_eps = unit(g), a @ (w + rho * unit(g))
    close(v, g_eps + rho / g.norm() * a @ (g_eps - (u @ g_eps) * u))


@pytest.mark.parametrize("rho", [0.01, 0.3, 3.0])
@pytest.mark.parametrize(("gamma", "beta"), [(0.1, 0.1), (0.7, 0.0), (0.0, 0.7)])
def test_cr_sam_on_a_quadratic(rho: float, gamma: float, beta: float) -> None:
    v, a, w = descended(cr_sam, rho=rho, gamma=gamma, beta=beta)
    slope = rho * a @ unit(a @ w)
    # The second difference is zero where the third derivative is.
    close(v, a @ w + (1 + 2 * beta) * slope)


@pytest.mark.parametrize("rho", [0.05, 0.4])
def test_gam_on_a_quadratic(rho: float) -> None:
    r, alpha, beta, gamma = 0.02, 0.6, 0.5, 0.03
    v, a, w = descended(gam, rho=rho, slope_rho=r, alpha=alpha, beta=beta, gamma=gamma)
    g0 = a @ w
    h = unit(a @ unit(g0))
    g2 = g0 + rho * a @ h
    g1, g3 = g0 + r * a @ unit(g0), g2 + r * a @ unit(g2)
    ahead, m = alpha * g1 + (1 - alpha) * g3, g0 + (1 - beta) * g2
    close(v, ahead - gamma * (m - (m @ unit(ahead)) * unit(ahead)))


RHOS = [(0.3, 0.3), (0.1, 0.4), (0.5, 0.0), (0.0, 0.2)]


def layer_with(rhos: tuple[float, float]) -> tuple[nn.Linear, torch.optim.SGD]:
    """A layer whose weight and bias have these radii."""
    layer = nn.Linear(6, 3, dtype=torch.float64)
    groups = [
        {"params": [p], "sam_rho": rho}
        for p, rho in zip(layer.parameters(), rhos, strict=True)
    ]
    return layer, torch.optim.SGD(groups, lr=0.1)


def loss_at(data: Batch, weight: Tensor, bias: Tensor) -> Tensor:
    return F.cross_entropy(data[0] @ weight.T + bias, data[1])


@pytest.mark.parametrize("rhos", RHOS)
def test_second_order_sam_is_autograd_through_its_objective(
    rhos: tuple[float, float],
) -> None:
    layer, base = layer_with(rhos)
    data = batch(torch.float64)
    for probe in second_order_sam(base, layer).probes():
        probe.backward(loss_at(data, layer.weight, layer.bias))
    w = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    g = torch.autograd.grad(loss_at(data, *w), w, create_graph=True)
    size = torch.cat([x.flatten() for x in g]).norm()
    there = [p + rho * x / size for p, rho, x in zip(w, rhos, g, strict=True)]
    expected = torch.autograd.grad(loss_at(data, *there), w)
    for p, v in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, v, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rhos", RHOS)
def test_many_steps_stay_in_the_ball_of_several_radii(
    rhos: tuple[float, float],
) -> None:
    layer, base = layer_with(rhos)
    data = batch(torch.float64)
    w = [p.detach().clone() for p in layer.parameters()]
    shares: list[float] = []
    for probe in multi_step_sam(base, layer, k=6).probes():
        moved = [p.detach() - t for p, t in zip(layer.parameters(), w, strict=True)]
        scaled = [x / r for x, r in zip(moved, rhos, strict=True) if r]
        still = [x for x, r in zip(moved, rhos, strict=True) if not r]
        assert not any(x.any() for x in still)
        shares.append(float(torch.cat([x.flatten() for x in scaled]).norm()))
        probe.backward(loss_at(data, layer.weight, layer.bias))
    assert max(shares) <= 1 + 1e-12
    assert shares[-1] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_many_short_steps_stay_in_the_ball(k: int) -> None:
    model = Quadratic()
    start = model.w.detach().clone()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    for probe in multi_step_sam(base, model, rho=0.3, k=k).probes():
        length = float((model.w.detach() - start).norm())
        assert length == pytest.approx(0.3 if probe.perturbed else 0.0, abs=1e-12)
        model().backward()


def test_many_steps_climb_higher_than_one() -> None:
    heights = []
    for k in (1, 2, 20):
        model = Quadratic()
        base = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = multi_step_sam(base, model, rho=2.0, k=k)
        for probe in optimizer.probes():
            probe.loss = model()
            probe.backward(model())
        heights.append(float(optimizer.statistics.perturbed_loss or 0))
    assert heights == sorted(heights)
    assert heights[0] < heights[2]


class Decaying(Quadratic):
    """The same loss with its penalty in it."""

    def loss(self, v: Tensor) -> Tensor:
        return super().loss(v) + 0.15 * v @ v


@pytest.mark.parametrize("build", [multi_step_sam, second_order_sam, cr_sam, gam])
def test_decay_in_the_ascent_is_a_penalty_in_the_loss(build: Any) -> None:
    model, twin = Quadratic(), Decaying()
    base = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.3)
    optimizer = build(base, model, rho=0.2, decay_in_ascent=True)
    other = build(torch.optim.SGD(twin.parameters(), lr=0.1), twin, rho=0.2)
    for _ in range(10):
        for net, opt in ((model, optimizer), (twin, other)):
            for probe in opt.probes():
                probe.backward(net())
            opt.step()
    close(model.w.detach(), twin.w.detach())

"""Methods of another ball against their formulas, written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin import SAM
from flatmin.methods import asam, fisher_sam, layer_sam, random_sam, sam_on, usam
from tests.methods.against import ONE, TWO, Pair, batch_of, net
from tests.reference import ball

GROUPS = pytest.mark.parametrize("groups", [ONE, TWO], ids=["one", "two"])
KINDS = pytest.mark.parametrize("kind", ["sgd", "adamw"])


def compare(
    pair: Pair,
    build: Callable[..., SAM],
    perturbation: ball.Perturbation,
    **options: Any,
) -> None:
    optimizer = build(pair.base, pair.net, rho=pair.rho, **options)
    pair.train(optimizer)
    w = ball.descend(pair.losses, pair.start, pair.reference, perturbation)
    pair.check(w, {})


@GROUPS
@KINDS
@pytest.mark.parametrize(("rho", "eta"), [(0.5, 0.01), (1.0, 0.0), (0.1, 0.5)])
def test_asam_equals_its_formula(
    groups: Any, kind: str, rho: float, eta: float
) -> None:
    pair = Pair(kind, groups, rho, 0.05 if kind == "sgd" else 0.01)
    compare(pair, asam, ball.asam(pair.rhos, eta, pair.names), eta=eta)


@GROUPS
@pytest.mark.parametrize(("rho", "eta"), [(0.1, 1.0), (0.5, 100.0)])
def test_fisher_sam_equals_its_formula(groups: Any, rho: float, eta: float) -> None:
    pair = Pair("sgd", groups, rho)
    compare(pair, fisher_sam, ball.fisher_sam(pair.rhos, eta), eta=eta)


@GROUPS
@KINDS
@pytest.mark.parametrize("rho", [0.02, 0.2])
def test_layer_sam_equals_its_formula(groups: Any, kind: str, rho: float) -> None:
    pair = Pair(kind, groups, rho, 0.05 if kind == "sgd" else 0.01)
    compare(pair, layer_sam, ball.layer_sam(pair.rhos))


@GROUPS
@pytest.mark.parametrize("rho", [0.01, 0.3])
def test_usam_equals_its_formula(groups: Any, rho: float) -> None:
    pair = Pair("sgd", groups, rho)
    compare(pair, usam, ball.usam(pair.rhos))


@GROUPS
@pytest.mark.parametrize("rho", [0.1, 1.0])
def test_sam_on_equals_its_formula(groups: Any, rho: float) -> None:
    pair = Pair("sgd", groups, rho)
    normalises = [name.partition(".")[0] in ("3", "6") for name in pair.names]
    assert sum(normalises) == 4
    compare(pair, sam_on, ball.sam_on(pair.rhos, normalises))


def moves(optimizer: SAM, model: nn.Module, step: int) -> list[list[Tensor]]:
    """How far each pass of a step is from ``w``."""
    x, y = batch_of(step)
    w = [p.detach().clone() for p in model.parameters()]
    found: list[list[Tensor]] = []
    for _ in optimizer.probes():
        here = [p.detach() - s for p, s in zip(model.parameters(), w, strict=True)]
        found.append(here)
        F.cross_entropy(model(x), y).backward()
    assert all(torch.equal(p, s) for p, s in zip(model.parameters(), w, strict=True))
    return found


def flat(xs: list[Tensor]) -> Tensor:
    return torch.cat([x.reshape(-1) for x in xs])


def randomly(rho: float) -> tuple[SAM, nn.Module]:
    torch.manual_seed(1)
    model = net()
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return random_sam(base, model, rho=rho), model


@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_random_sam_takes_one_gradient_at_distance_rho(rho: float) -> None:
    optimizer, model = randomly(rho)
    for step in range(5):
        [eps] = moves(optimizer, model, step)
        assert float(flat(eps).norm()) == pytest.approx(rho, rel=1e-12)
        optimizer.step()


def test_random_sam_climbs_the_same_way_whenever_a_step_is_repeated() -> None:
    (first, one), (second, other) = randomly(0.1), randomly(0.1)
    torch.manual_seed(99)
    for step in range(3):
        [a], [b] = moves(first, one, step), moves(second, other, step)
        first.zero_grad()
        [again] = moves(first, one, step)
        assert torch.equal(flat(a), flat(b))
        assert torch.equal(flat(a), flat(again))
        first.step()
        second.step()


def test_random_sam_climbs_other_ways_in_other_steps_and_tensors() -> None:
    optimizer, model = randomly(1.0)
    found: list[Tensor] = []
    for step in range(10):
        [eps] = moves(optimizer, model, step)
        found.append(flat(eps))
        pieces = [e.reshape(-1)[:3] / e.reshape(-1)[:3].norm() for e in eps]
        assert len({tuple(x.tolist()) for x in pieces}) == len(pieces)
        optimizer.step()
    cosines = torch.stack(found) @ torch.stack(found).T
    assert float((cosines - torch.eye(10)).abs().max()) < 0.5


def test_random_directions_are_normal() -> None:
    model = nn.Linear(200, 50).double()
    optimizer = random_sam(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=1.0)
    w = model.weight.detach().clone()
    drawn: list[Tensor] = []
    for _ in optimizer.probes():
        drawn.append((model.weight.detach() - w).flatten())
        model(torch.ones(1, 200, dtype=torch.float64)).sum().backward()
    [x] = drawn
    z = x / x.square().mean().sqrt()
    assert abs(float(z.mean())) < 0.05
    assert float((z**4).mean()) == pytest.approx(3, abs=0.3)


def test_random_sam_draws_from_no_global_stream() -> None:
    optimizer, model = randomly(0.1)
    before = torch.get_rng_state()
    moves(optimizer, model, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_sam_descends_the_gradient_that_it_found() -> None:
    optimizer, model = randomly(0.1)
    [eps] = moves(optimizer, model, 0)
    x, y = batch_of(0)
    there = [p.detach() + e for p, e in zip(model.parameters(), eps, strict=True)]
    leaves = [t.requires_grad_() for t in there]
    names = [name for name, _ in model.named_parameters()]
    named = dict(zip(names, leaves, strict=True))
    loss = F.cross_entropy(torch.func.functional_call(model, named, (x,)), y)
    for p, g in zip(model.parameters(), torch.autograd.grad(loss, leaves), strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-10, atol=1e-12)

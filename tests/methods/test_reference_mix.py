"""Methods of another descent against their formulas, written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flatmin import SAM
from flatmin.core import radii
from flatmin.methods import coupled_wsam, gnp, gsam, sagm, stable_sam, wsam
from tests.methods.against import ONE, TWO, Pair
from tests.reference import mix

GROUPS = pytest.mark.parametrize("groups", [ONE, TWO], ids=["one", "two"])
KINDS = pytest.mark.parametrize("kind", ["sgd", "adamw"])
RHOS = pytest.mark.parametrize("rho", [0.04, 0.3])


def made(groups: Any, rho: float, kind: str = "sgd", lr: float = 0.03) -> Pair:
    return Pair(kind, groups, rho, lr if kind == "sgd" else 0.01)


def compare(
    pair: Pair, build: Callable[..., SAM], rule: mix.Mix, **options: Any
) -> None:
    pair.train(build(pair.base, pair.net, rho=pair.rho, **options))
    w = mix.descend(pair.losses, pair.start, pair.reference, rule, rho=pair.rhos)
    pair.check(w, {})


@GROUPS
@RHOS
@pytest.mark.parametrize("alpha", [0.8, 0.1, 1.5])
def test_gnp_equals_its_formula(groups: Any, rho: float, alpha: float) -> None:
    compare(made(groups, rho), gnp, mix.gnp(alpha), alpha=alpha)


@GROUPS
@KINDS
@RHOS
@pytest.mark.parametrize("alpha", [0.01, 0.5])
def test_gsam_equals_its_formula(
    groups: Any, kind: str, rho: float, alpha: float
) -> None:
    compare(made(groups, rho, kind), gsam, mix.gsam(alpha), alpha=alpha)


@GROUPS
@RHOS
@pytest.mark.parametrize("gamma", [0.9, 0.3])
def test_coupled_wsam_equals_its_formula(groups: Any, rho: float, gamma: float) -> None:
    pair = made(groups, rho, lr=0.01)
    compare(pair, coupled_wsam, mix.coupled_wsam(gamma), gamma=gamma)


@GROUPS
@KINDS
@RHOS
def test_stable_sam_equals_its_formula(groups: Any, kind: str, rho: float) -> None:
    compare(made(groups, rho, kind), stable_sam, mix.stable_sam)


@GROUPS
@KINDS
@RHOS
@pytest.mark.parametrize("gamma", [0.9, 0.3])
def test_wsam_equals_its_formula(
    groups: Any, kind: str, rho: float, gamma: float
) -> None:
    pair = made(groups, rho, kind, 0.01)
    pair.base.param_groups[1]["lr"] = 0.5 * pair.lr
    pair.reference.lr[-4:] = [0.5 * pair.lr] * 4
    rates = pair.reference.lr
    pair.train(wsam(pair.base, pair.net, rho=rho, gamma=gamma))
    w = mix.wsam(
        pair.losses, pair.start, pair.reference, rho=pair.rhos, gamma=gamma, lr=rates
    )
    pair.check(w, {})


@GROUPS
@RHOS
@pytest.mark.parametrize("alpha", [0.001, 0.1])
def test_sagm_equals_its_formula(groups: Any, rho: float, alpha: float) -> None:
    pair = made(groups, rho)
    pair.train(sagm(pair.base, pair.net, rho=rho, alpha=alpha))
    w = mix.sagm(pair.losses, pair.start, pair.reference, rho=pair.rhos, alpha=alpha)
    pair.check(w, {})


def test_the_radius_of_gsam_follows_the_rate_between_two_bounds() -> None:
    pair = made(ONE, 0.3)
    for group, lr in zip(pair.base.param_groups, (0.1, 0.02), strict=True):
        group["lr"] = lr
    radius = radii.with_rate(rho_min=0.05, lr_min=0.0, lr_max=0.1)
    optimizer = gsam(pair.base, pair.net, rho=0.3, alpha=0.2, radius=radius)
    pair.train(optimizer)
    first = len(pair.rhos) - 4
    pair.reference.lr = [0.1] * first + [0.02] * 4
    rho = [0.3] * first + [0.05 + 0.25 * 0.2] * 4
    w = mix.descend(pair.losses, pair.start, pair.reference, mix.gsam(0.2), rho=rho)
    pair.check(w, {})

"""Methods of another direction against their formulas, written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from flatmin.core import Step, filters
from flatmin.methods import (
    friendly_sam,
    gcsam,
    momentum_sam,
    sampa,
    stale_sam,
    vasso,
    zsharp,
)
from tests.methods.against import ONE, TWO, Pair
from tests.reference import source

GROUPS = pytest.mark.parametrize("groups", [ONE, TWO], ids=["one", "two"])
KINDS = pytest.mark.parametrize("kind", ["sgd", "adamw"])
RHOS = pytest.mark.parametrize("rho", [0.05, 0.3])


def made(groups: Any, rho: float, kind: str = "sgd") -> Pair:
    return Pair(kind, groups, rho, 0.05 if kind == "sgd" else 0.01)


@GROUPS
@KINDS
@RHOS
@pytest.mark.parametrize(("sigma", "decay"), [(1.0, 0.95), (1.0, 0.6), (0.3, 0.9)])
def test_friendly_sam_equals_its_formula(
    groups: Any, kind: str, rho: float, sigma: float, decay: float
) -> None:
    pair = made(groups, rho, kind)
    options: Any = {"sigma": sigma, "decay": decay}
    pair.train(friendly_sam(pair.base, pair.net, rho=rho, **options))
    w, m = source.friendly_sam(
        pair.losses, pair.start, pair.reference, rho=pair.rhos, **options
    )
    pair.check(w, {"sam_friend": m})


@GROUPS
@RHOS
@pytest.mark.parametrize("theta", [0.9, 0.2, 1.0])
def test_vasso_equals_its_formula(groups: Any, rho: float, theta: float) -> None:
    pair = made(groups, rho)
    pair.train(vasso(pair.base, pair.net, rho=rho, theta=theta))
    w, d = source.vasso(
        pair.losses, pair.start, pair.reference, rho=pair.rhos, theta=theta
    )
    pair.check(w, {"sam_smooth": d})


@GROUPS
@KINDS
@RHOS
def test_gcsam_equals_its_formula(groups: Any, kind: str, rho: float) -> None:
    pair = made(groups, rho, kind)
    pair.train(gcsam(pair.base, pair.net, rho=rho))
    w = source.gcsam(pair.losses, pair.start, pair.reference, rho=pair.rhos)
    pair.check(w, {})


@GROUPS
@RHOS
@pytest.mark.parametrize("share", [0.95, 0.77, 0.31])
def test_zsharp_equals_its_formula(groups: Any, rho: float, share: float) -> None:
    pair = made(groups, rho)
    pair.train(zsharp(pair.base, pair.net, rho=rho, share=share))
    w = source.zsharp(
        pair.losses, pair.start, pair.reference, rho=pair.rhos, share=share
    )
    pair.check(w, {})


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_entry_on_the_quantile_does_not_move(
    share: float, dtype: torch.dtype
) -> None:
    w = torch.zeros(13, dtype=dtype)
    step = Step(index=0, model=nn.Identity(), w=[w], groups=[])
    for seed in range(50):
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(13, generator=draw, dtype=torch.float64).to(dtype)
        [mine] = filters.outliers(share)(step, [x])
        assert mine is not None
        assert int((mine != 0).sum()) == 12 - round(12 * share)


@GROUPS
@RHOS
def test_stale_sam_equals_its_formula(groups: Any, rho: float) -> None:
    pair = made(groups, rho)
    pair.train(stale_sam(pair.base, pair.net, rho=rho))
    w, v = source.stale_sam(pair.losses, pair.start, pair.reference, rho=pair.rhos)
    pair.check(w, {"sam_stale": v})


@GROUPS
@KINDS
@pytest.mark.parametrize("rho", [0.05, 1.0])
def test_momentum_sam_equals_its_formula(groups: Any, kind: str, rho: float) -> None:
    pair = made(groups, rho, kind)
    pair.train(momentum_sam(pair.base, pair.net, rho=rho))
    w = source.momentum_sam(pair.losses, pair.start, pair.reference, rho=pair.rhos)
    pair.check(w, {})


SAMPA = pytest.mark.parametrize(
    ("rho", "weight"), [(0.1, 0.2), (0.3, 0.0), (0.05, 1.0)]
)


@GROUPS
@KINDS
@SAMPA
def test_sampa_over_one_batch_equals_its_formula(
    groups: Any, kind: str, rho: float, weight: float
) -> None:
    pair = made(groups, rho, kind)
    pair.train(sampa(pair.base, pair.net, rho=rho, weight=weight))
    w, g = source.sampa(
        pair.losses,
        pair.losses,
        pair.start,
        pair.reference,
        rho=pair.rhos,
        lr=pair.lr,
        weight=weight,
    )
    pair.check(w, {"sam_ahead": g})


@GROUPS
@KINDS
@SAMPA
def test_sampa_over_two_batches_equals_its_formula(
    groups: Any, kind: str, rho: float, weight: float
) -> None:
    pair = made(groups, rho, kind)
    optimizer = sampa(pair.base, pair.net, rho=rho, weight=weight)
    before = [pair.losses[0], *pair.losses[:-1]]
    for loss, last in zip(pair.losses, before, strict=True):
        for probe in optimizer.probes():
            chosen = loss if probe.index else last
            chosen(list(pair.net.parameters())).backward()
        optimizer.step()
    w, g = source.sampa(
        pair.losses,
        before,
        pair.start,
        pair.reference,
        rho=pair.rhos,
        lr=pair.lr,
        weight=weight,
    )
    pair.check(w, {"sam_ahead": g})


def test_what_sampa_finds_in_micro_batches_does_not_add_up() -> None:
    pair = made(ONE, 0.1)
    optimizer = sampa(pair.base, pair.net)
    with pytest.raises(RuntimeError, match="once per micro-batch"):
        next(iter(optimizer.probes(accumulate=True)))


@pytest.mark.parametrize("build", [friendly_sam, vasso])
def test_a_running_mean_does_not_run_over_loss_scales(build: Any) -> None:
    pair = made(ONE, 0.1)
    optimizer = build(pair.base, pair.net)
    scaler = torch.amp.GradScaler("cpu", growth_interval=1)
    scaler.scale(pair.losses[0](list(pair.net.parameters())))
    for _ in optimizer.probes():
        scaler.scale(pair.losses[0](list(pair.net.parameters()))).backward()
    with pytest.raises(RuntimeError, match="scaler=scaler"):
        scaler.step(optimizer)

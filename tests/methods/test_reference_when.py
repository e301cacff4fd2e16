"""Methods that climb now and then against their formulas, written out."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from flatmin import SAM
from flatmin.methods import (
    ae_sam,
    alternating_sam,
    interval_sam,
    late_sam,
    late_subset_sam,
    looksam,
    ss_sam,
    subset_sam,
)
from tests.methods.against import ONE, STEPS, TWO, Pair, batch_of, pair_of
from tests.reference import when

GROUPS = pytest.mark.parametrize("groups", [ONE, TWO], ids=["one", "two"])
KINDS = pytest.mark.parametrize("kind", ["sgd", "adamw"])


@GROUPS
@KINDS
@pytest.mark.parametrize("k", [1, 3, 10])
def test_interval_sam_equals_its_formula(kind: str, groups: Any, k: int) -> None:
    pair = pair_of(kind, groups, 0.05)
    pair.train(interval_sam(pair.base, pair.net, rho=pair.rho, k=k))
    base, rho = pair.reference, pair.rhos
    pair.check(when.interval_sam(pair.losses, pair.start, base, rho, k), {})


@GROUPS
@KINDS
@pytest.mark.parametrize("share", [0.125, 0.5, 1.0])
def test_late_sam_equals_its_formula(kind: str, groups: Any, share: float) -> None:
    pair = pair_of(kind, groups)
    pair.train(late_sam(pair.base, pair.net, rho=pair.rho, steps=STEPS, share=share))
    w = when.late_sam(pair.losses, pair.start, pair.reference, pair.rhos, STEPS, share)
    pair.check(w, {})


@GROUPS
@KINDS
@pytest.mark.parametrize("probability", [0.2, 0.5, 0.8])
def test_ss_sam_equals_its_formula(kind: str, groups: Any, probability: float) -> None:
    pair = pair_of(kind, groups)
    pair.train(ss_sam(pair.base, pair.net, rho=pair.rho, probability=probability))
    coins = [random.Random(f"0 {k}").random() < probability for k in range(STEPS)]
    assert any(coins)
    assert not all(coins)
    w = when.ss_sam(pair.losses, pair.start, pair.reference, pair.rhos, coins)
    pair.check(w, {})


@GROUPS
@KINDS
@pytest.mark.parametrize(("early", "late"), [(1.0, -1.0), (0.0, 0.0), (0.3, 2.0)])
@pytest.mark.parametrize("decay", [0.9, 0.5])
def test_ae_sam_equals_its_formula(
    kind: str, groups: Any, early: float, late: float, decay: float
) -> None:
    pair = pair_of(kind, groups)
    rule = {"steps": STEPS, "decay": decay, "early": early, "late": late}
    optimizer = ae_sam(pair.base, pair.net, rho=pair.rho, **rule)
    climbed = train_noting(pair, optimizer)
    w, mean, variance, expected = when.ae_sam(
        pair.losses, pair.start, pair.reference, pair.rhos, **rule
    )
    assert climbed == expected
    assert any(climbed)
    assert not all(climbed)
    pair.check(w, {})
    group = optimizer.param_groups[0]
    assert group["sam_steep_mean"] == pytest.approx(mean, rel=1e-10)
    assert group["sam_steep_var"] == pytest.approx(variance, rel=1e-10)


def train_noting(pair: Pair, optimizer: SAM) -> list[bool]:
    """Which steps climbed."""
    climbed: list[bool] = []
    for k in range(STEPS):
        x, y = batch_of(k)
        away: list[bool] = []
        for probe in optimizer.probes():
            F.cross_entropy(pair.net(x), y).backward()
            away.append(probe.perturbed)
        optimizer.step()
        climbed.append(away[-1])
    return climbed


@GROUPS
@KINDS
@pytest.mark.parametrize(("k", "alpha"), [(5, 0.7), (2, 0.1), (4, 0.0)])
def test_looksam_equals_its_formula(
    kind: str, groups: Any, k: int, alpha: float
) -> None:
    pair = pair_of(kind, groups)
    pair.train(looksam(pair.base, pair.net, rho=pair.rho, k=k, alpha=alpha))
    w, u = when.looksam(
        pair.losses, pair.start, pair.reference, pair.rhos, k=k, alpha=alpha
    )
    pair.check(w, {"sam_look": u})


@GROUPS
@KINDS
@pytest.mark.parametrize(("share", "first"), [(0.25, 3), (0.5, 6), (0.01, 1)])
def test_subset_sam_equals_its_formula(
    kind: str, groups: Any, share: float, first: int
) -> None:
    pair = pair_of(kind, groups, 0.03)
    optimizer = subset_sam(pair.base, pair.net, rho=pair.rho, share=share)
    for k in range(STEPS):
        for probe in optimizer.probes():
            x, y = probe.take(*batch_of(k))
            F.cross_entropy(pair.net(x), y).backward()
        optimizer.step()
    parts = [part_loss(pair, k, first) for k in range(STEPS)]
    w = when.subset_sam(
        parts, pair.losses, pair.start, pair.reference, pair.rhos, share
    )
    pair.check(w, {})


@GROUPS
@KINDS
@pytest.mark.parametrize(
    ("late", "share", "ramp", "first"),
    [(0.4, 0.25, 0.5, 3), (0.8, 0.5, 0.0, 6), (1.0, 0.25, 1.0, 3)],
)
def test_late_subset_sam_equals_its_formula(
    kind: str, groups: Any, late: float, share: float, ramp: float, first: int
) -> None:
    pair = pair_of(kind, groups, 0.03)
    chosen: dict[str, Any] = {"late": late, "share": share, "ramp": ramp}
    optimizer = late_subset_sam(
        pair.base, pair.net, rho=pair.rho, steps=STEPS, **chosen
    )
    for k in range(STEPS):
        for probe in optimizer.probes():
            x, y = probe.take(*batch_of(k))
            F.cross_entropy(pair.net(x), y).backward()
        optimizer.step()
    parts = [part_loss(pair, k, first) for k in range(STEPS)]
    w = when.late_subset_sam(
        parts, pair.losses, pair.start, pair.reference, pair.rhos, **chosen
    )
    pair.check(w, {})


def part_loss(pair: Pair, step: int, first: int) -> when.Loss:
    x, y = batch_of(step)

    def loss(w: list[Tensor]) -> Tensor:
        named = dict(zip(pair.names, w, strict=True))
        out = functional_call(pair.net, named, (x[:first],))
        return F.cross_entropy(out, y[:first])

    return loss


@GROUPS
@KINDS
@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_alternating_sam_equals_its_formula(kind: str, groups: Any, rho: float) -> None:
    pair = pair_of(kind, groups, rho)
    optimizer = alternating_sam(pair.base, pair.net, rho=pair.rho)
    for k in range(STEPS):
        x, y = batch_of(k // 2)
        for _ in optimizer.probes():
            F.cross_entropy(pair.net(x), y).backward()
        optimizer.step()
    losses = [pair.losses[k // 2] for k in range(STEPS)]
    w, first = when.alternating_sam(losses, pair.start, pair.reference, pair.rhos)
    pair.check(w, {"sam_first": first})


def test_what_is_remembered_is_not_clipped_with_the_gradient() -> None:
    pair = Pair()
    optimizer = alternating_sam(pair.base, pair.net, rho=pair.rho)
    x, y = batch_of(0)
    for _ in optimizer.probes():
        F.cross_entropy(pair.net(x), y).backward()
    g = [p.grad.clone() for p in pair.net.parameters() if p.grad is not None]
    torch.nn.utils.clip_grad_norm_(pair.net.parameters(), 1e-3)
    optimizer.step()
    for p, expected in zip(pair.net.parameters(), g, strict=True):
        assert torch.equal(optimizer.state[p]["sam_first"], expected)

"""What methods are when their parameter is at one of its ends: bit for bit another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

import flatmin.methods as of
from flatmin import SAM
from flatmin.core import Step, filters
from tests.problems import (
    Noisy,
    Odd,
    assert_same,
    assert_same_state,
    batch,
    loss_of,
    sam_steps,
    snapshot,
)

STEPS = 10
RHO = 0.2

EVERY: dict[str, Callable[..., SAM]] = {
    build.__name__: build
    for build in (
        *(of.asam, of.fisher_sam, of.layer_sam, of.usam, of.random_sam, of.sam_on),
        *(of.friendly_sam, of.vasso, of.gcsam, of.zsharp, of.stale_sam),
        *(of.momentum_sam, of.gnp, of.gsam, of.wsam, of.coupled_wsam),
        *(of.stable_sam, of.sagm),
    )
}
EACH = pytest.mark.parametrize("name", EVERY)

#: Built with these options they are SAM.
SAMS: list[tuple[Callable[..., SAM], dict[str, float]]] = [
    (of.friendly_sam, {"sigma": 0}),
    (of.friendly_sam, {"sigma": 0.0, "decay": 0.5}),
    (of.vasso, {"theta": 1}),
    (of.gnp, {"alpha": 1}),
    (of.gsam, {"alpha": 0}),
    (of.coupled_wsam, {"gamma": 0.5}),
    (of.fisher_sam, {"eta": 0}),
]

#: With these their weights are the base's.
PLAIN: list[tuple[Callable[..., SAM], dict[str, float]]] = [
    (of.gnp, {"alpha": 0}),
    (of.wsam, {"gamma": 0}),
    (of.coupled_wsam, {"gamma": 0}),
]


class Run:
    """Ten steps of a net with BatchNorm and dropout, from one seed."""

    def __init__(self, kind: str) -> None:
        torch.manual_seed(5)
        self.model = Noisy()
        self.base = _base(kind, self.model)
        self.calls = 0
        self.model.register_forward_hook(self._count)
        torch.manual_seed(6)

    def _count(self, *_: object) -> None:
        self.calls += 1

    def sam(self, build: Callable[..., SAM], rho: float = RHO, **options: Any) -> Run:
        optimizer = build(self.base, self.model, rho=rho, **options)
        for k in range(STEPS):
            sam_steps(optimizer, self.model, batch_of(k), 1)
        return self._finished()

    def plain(self) -> Run:
        for k in range(STEPS):
            self.base.zero_grad()
            loss_of(self.model, batch_of(k)).backward()
            self.base.step()
        return self._finished()

    def _finished(self) -> Run:
        self.stream = torch.get_rng_state()
        return self


def _base(kind: str, model: nn.Module) -> Optimizer:
    if kind == "sgd":
        args: Any = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}
        return torch.optim.SGD(model.parameters(), **args)
    return torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)


def batch_of(step: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return torch.randn(12, 6, generator=draw), torch.randint(3, (12,), generator=draw)


def same(a: Run, b: Run) -> None:
    assert_same(snapshot(a.model), snapshot(b.model))
    assert torch.equal(a.stream, b.stream)


def named(pair: object) -> str:
    return getattr(pair, "__name__", str(pair))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize(("build", "options"), SAMS, ids=named)
def test_at_one_end_it_is_sam(
    build: Callable[..., SAM], options: dict[str, float], kind: str
) -> None:
    same(Run(kind).sam(build, **options), Run(kind).sam(SAM))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize(("build", "options"), PLAIN, ids=named)
def test_at_one_end_it_is_the_base(
    build: Callable[..., SAM], options: dict[str, float], kind: str
) -> None:
    mine, base = Run(kind).sam(build, **options), Run(kind).plain()
    same(mine, base)
    assert_same_state(mine.base, base.base)
    assert (mine.calls, base.calls) == (2 * STEPS, STEPS)


def test_sagm_that_takes_nothing_off_is_half_a_penalty() -> None:
    same(Run("sgd").sam(of.sagm, alpha=0), Run("sgd").sam(of.gnp, alpha=0.5))


@EACH
def test_between_the_ends_it_is_neither(name: str) -> None:
    mine = snapshot(Run("sgd").sam(EVERY[name]).model)
    for other in (Run("sgd").plain(), Run("sgd").sam(SAM)):
        theirs = snapshot(other.model)
        assert not torch.equal(mine["0.weight"], theirs["0.weight"])


@EACH
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_without_radius_it_is_the_base_at_the_base_s_price(
    name: str, kind: str
) -> None:
    mine, base = Run(kind).sam(EVERY[name], rho=0.0), Run(kind).plain()
    same(mine, base)
    assert_same_state(mine.base, base.base)
    assert mine.calls == base.calls == STEPS


@EACH
def test_a_group_of_radius_zero_stays_where_it_is(name: str) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)).double()
    ps = list(model.parameters())
    groups = [{"params": ps[:3]}, {"params": ps[3:], "sam_rho": 0.0}]
    optimizer = EVERY[name](torch.optim.SGD(groups, lr=0.1, momentum=0.9), model, rho=1)
    for _ in range(3):
        w = [p.detach().clone() for p in ps]
        for probe in optimizer.probes():
            if probe.perturbed:
                moved = [not torch.equal(p, s) for p, s in zip(ps, w, strict=True)]
                assert any(moved[:3])
                assert not any(moved[3:])
            loss_of(model, batch(torch.float64)).backward()
        optimizer.step()


class OddNormed(Odd):
    """With a layer that normalises."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


@EACH
def test_odd_parameters_are_no_obstacle(name: str) -> None:
    model = OddNormed()
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sam_steps(EVERY[name](base, model, rho=0.1), model, batch(), 4)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def step_of(w: Tensor) -> Step:
    return Step(index=0, model=nn.Identity(), w=[w], groups=[])


@pytest.mark.parametrize("n", [3, 7, 100])
def test_zsharp_at_quantile_zero_leaves_out_the_entry_nearest_the_mean(n: int) -> None:
    x = torch.randn(n)
    [mine] = filters.outliers(0.0)(step_of(x), [x])
    least = int((x - x.mean()).abs().argmin())
    expected = torch.where(torch.arange(n) == least, 0, x)
    assert mine is not None
    assert torch.equal(mine, expected)


@pytest.mark.parametrize("x", [[0.3], [0.5, -0.25], [1.0, 1.0, 1.0], [0.5, -0.5] * 4])
def test_zsharp_moves_all_of_a_tensor_without_outliers(x: list[float]) -> None:
    g = torch.tensor(x)
    [mine] = filters.outliers(0.0)(step_of(g), [g])
    assert mine is not None
    assert torch.equal(mine, g)


def test_zsharp_at_quantile_zero_is_near_sam() -> None:
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 3))
    data = batch()
    found: list[Tensor] = []
    for build in (SAM, partial(of.zsharp, share=0.0)):
        base = torch.optim.SGD(model.parameters(), lr=0.0)
        optimizer = build(base, model, rho=0.1)
        w = [p.detach().clone() for p in model.parameters()]
        for probe in optimizer.probes():
            if probe.perturbed:
                pairs = zip(model.parameters(), w, strict=True)
                found.append(torch.cat([(p.detach() - s).flatten() for p, s in pairs]))
            loss_of(model, data).backward()
    left_out = (found[1] == 0) & (found[0] != 0)
    assert int(left_out.sum()) == 4
    assert float(F.cosine_similarity(found[0], found[1], dim=0)) > 0.95

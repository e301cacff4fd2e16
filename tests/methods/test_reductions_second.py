"""At special values of their options, methods are SAM or the base, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin import SAM
from flatmin.methods import (
    ae_sam,
    alternating_sam,
    cr_sam,
    esam,
    gam,
    interval_sam,
    k_sam,
    late_sam,
    late_subset_sam,
    lookbehind_sam,
    looksam,
    matched_sam,
    multi_step_sam,
    second_order_sam,
    sparse_sam,
    ss_sam,
    subset_sam,
)
from tests.methods.table import BASES, answer, data_of, index_of, train
from tests.problems import Noisy, assert_same, tensors

BASE = pytest.mark.parametrize("base", ["sgd", "adamw"])
DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
Build = Callable[..., SAM]

IS_SAM: list[tuple[Build, dict[str, Any]]] = [
    (interval_sam, {"k": 1}),
    (late_sam, {"steps": 10, "share": 1.0}),
    (late_subset_sam, {"steps": 10, "late": 1.0, "share": 1.0, "ramp": 0.0}),
    (ss_sam, {"probability": 1.0}),
    (looksam, {"k": 1}),
    (subset_sam, {"share": 1.0}),
    (multi_step_sam, {"k": 1}),
    (cr_sam, {"gamma": 0.0, "beta": 0.0}),
    (k_sam, {"share": 1.0}),
    (matched_sam, {"share": 1.0, "decay": 1.0}),
    (esam, {"beta": 1.0, "gamma": 1.0}),
    (sparse_sam, {"every": 3, "share": 1.0, "samples": 2, "m": 2}),
    (lookbehind_sam, {"k": 1, "alpha": 1.0}),
    (ae_sam, {"steps": 10, "early": -1e9, "late": -1e9}),
]

IS_BASE: list[tuple[Build, dict[str, Any]]] = [
    (interval_sam, {"rho": 0.0, "k": 2}),
    (late_sam, {"rho": 0.0, "steps": 10, "share": 0.5}),
    (late_subset_sam, {"rho": 0.0, "steps": 10}),
    (ss_sam, {"rho": 0.0}),
    (ae_sam, {"rho": 0.0, "steps": 10}),
    (looksam, {"rho": 0.0, "k": 2}),
    (subset_sam, {"rho": 0.0}),
    (alternating_sam, {"rho": 0.0}),
    (multi_step_sam, {"rho": 0.0}),
    (second_order_sam, {"rho": 0.0}),
    (cr_sam, {"rho": 0.0}),
    (k_sam, {"rho": 0.0}),
    (matched_sam, {"rho": 0.0}),
    (esam, {"rho": 0.0}),
    (sparse_sam, {"rho": 0.0, "every": 2}),
    (lookbehind_sam, {"rho": 0.0}),
    (gam, {"rho": 0.0}),
]


def names(rows: list[tuple[Build, dict[str, Any]]]) -> list[str]:
    return [f"{build.__name__}-{options}" for build, options in rows]


def twins(dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    model = Noisy().to(dtype)
    return model, copy.deepcopy(model)


def run(optimizer: SAM, model: nn.Module, dtype: torch.dtype, n: int = 10) -> None:
    for _ in range(n):
        step = index_of(optimizer)
        torch.manual_seed(step)
        for probe in optimizer.probes():
            answer(probe, model, data_of(step, dtype))
        optimizer.step()


@BASE
@DTYPE
@pytest.mark.parametrize(("build", "options"), IS_SAM, ids=names(IS_SAM))
def test_these_are_sam(
    base: str, dtype: torch.dtype, build: Build, options: dict[str, Any]
) -> None:
    model, twin = twins(dtype)
    optimizer = build(BASES[base](model.parameters()), model, rho=0.1, **options)
    other = SAM(BASES[base](twin.parameters()), twin, rho=0.1)
    run(optimizer, model, dtype)
    run(other, twin, dtype)
    assert_same(tensors(model), tensors(twin))
    same_base_state(optimizer, other)


@BASE
@DTYPE
@pytest.mark.parametrize(("build", "options"), IS_BASE, ids=names(IS_BASE))
def test_these_are_the_base_at_its_price(
    base: str, dtype: torch.dtype, build: Build, options: dict[str, Any]
) -> None:
    model, twin = twins(dtype)
    optimizer = build(BASES[base](model.parameters()), model, **options)
    plain = BASES[base](twin.parameters())
    for step in range(10):
        run(optimizer, model, dtype, 1)
        assert optimizer.statistics.passes == 1
        torch.manual_seed(step)
        plain.zero_grad()
        x, y = data_of(step, dtype)
        nn.functional.cross_entropy(twin(x), y).backward()
        plain.step()
    assert_same(tensors(model), tensors(twin))
    same_base_state(optimizer, plain)


def same_base_state(a: Optimizer, b: Optimizer) -> None:
    """What the second has in its state, the first has as well."""
    mine, others = a.state_dict()["state"], b.state_dict()["state"]
    assert mine.keys() == others.keys()
    for k, entry in others.items():
        for name, value in entry.items():
            assert torch.equal(torch.as_tensor(mine[k][name]), torch.as_tensor(value))


class Linear(nn.Module):
    """A loss whose Hessian is zero."""

    def __init__(self, bend: float) -> None:
        super().__init__()
        self.bend = bend
        self.w = nn.Parameter(torch.arange(1.0, 6.0, dtype=torch.float64))

    def forward(self) -> Tensor:
        slope = torch.linspace(-1, 2, 5, dtype=torch.float64)
        flat = (slope * self.w).sum()
        return flat + self.bend * (self.w**3).sum() if self.bend else flat


def test_second_order_sam_of_a_linear_loss_is_sam() -> None:
    model, twin = Linear(0.0), Linear(0.0)
    optimizer = second_order_sam(torch.optim.SGD(model.parameters(), lr=0.1), model)
    other = SAM(torch.optim.SGD(twin.parameters(), lr=0.1), twin)
    for net, opt in ((model, optimizer), (twin, other)):
        for _ in range(3):
            for probe in opt.probes():
                probe.backward(net())
            opt.step()
    assert torch.equal(model.w, twin.w)


@pytest.mark.parametrize("bend", [1e-9, 1e-6])
def test_second_order_sam_of_a_nearly_linear_loss_is_nearly_sam(bend: float) -> None:
    model, twin = Linear(bend), Linear(bend)
    optimizer = second_order_sam(torch.optim.SGD(model.parameters(), lr=0.1), model)
    other = SAM(torch.optim.SGD(twin.parameters(), lr=0.1), twin)
    for net, opt in ((model, optimizer), (twin, other)):
        for probe in opt.probes():
            probe.backward(net())
        opt.step()
    torch.testing.assert_close(model.w, twin.w, rtol=10 * bend, atol=0)


def test_looksam_without_correction_is_sam_and_the_base_in_turns() -> None:
    model, twin = twins(torch.float64)
    optimizer = looksam(
        BASES["sgd"](model.parameters()), model, rho=0.1, k=2, alpha=0.0
    )
    other = interval_sam(BASES["sgd"](twin.parameters()), twin, rho=0.05, k=2)
    train(optimizer, model, 10)
    train(other, twin, 10)
    assert_same(tensors(model), tensors(twin))


def test_alternating_sam_is_plain_in_every_first_step() -> None:
    model, twin = twins(torch.float64)
    optimizer = alternating_sam(BASES["sgd"](model.parameters()), model, rho=0.5)
    plain = BASES["sgd"](twin.parameters())
    train(optimizer, model, 1)
    torch.manual_seed(0)
    x, y = data_of(0)
    nn.functional.cross_entropy(twin(x), y).backward()
    plain.step()
    assert_same(tensors(model), tensors(twin))

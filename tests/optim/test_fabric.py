"""SAM inside of Lightning Fabric, which wraps model and optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad_norm_

from flatmin import SAM, usam
from tests.problems import (
    assert_same,
    batch,
    loss_of,
    mlp,
    sam_steps,
    tensors,
    without,
)

DATA = batch(torch.float32)
MAX_NORM = 0.1


def model_of(seed: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return mlp(torch.float32)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def fabric_of(**options: Any) -> Fabric:
    return Fabric(accelerator="cpu", devices=1, **options)


def set_up(fabric: Fabric, build: Any = SAM, **options: Any) -> tuple[nn.Module, Any]:
    model = fabric.setup_module(model_of())
    optimizer = build(sgd(model), model, rho=0.2, **options)
    return model, fabric.setup_optimizers(optimizer)


def steps(fabric: Fabric, model: nn.Module, optimizer: Any, n: int) -> None:
    for _ in range(n):
        for probe in optimizer.probes():
            loss = loss_of(model, DATA)
            probe.loss = loss
            fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=MAX_NORM)
        optimizer.step()


def test_a_loop_over_what_fabric_returns_is_one_over_sam() -> None:
    fabric = fabric_of()
    model, wrapped = set_up(fabric)
    with without(RuntimeError, "the step has not seen the loop"):
        steps(fabric, model, wrapped, 3)
    plain = model_of()
    optimizer = SAM(sgd(plain), plain, rho=0.2)
    for _ in range(3):
        for probe in optimizer.probes():
            probe.loss = loss_of(plain, DATA)
            loss_of(plain, DATA).backward()
        clip_grad_norm_(plain.parameters(), MAX_NORM)
        optimizer.step()
    assert_same(tensors(fabric_module(model)), tensors(plain))
    assert wrapped.sharpness == optimizer.sharpness
    assert wrapped.param_groups[0]["sam_step"] == 3


def fabric_module(model: Any) -> nn.Module:
    return model.module


def test_a_step_without_a_loop_is_refused_through_the_wrapper() -> None:
    fabric = fabric_of()
    model, optimizer = set_up(fabric)
    with pytest.raises(RuntimeError, match=r"finished probes\(\) loop"):
        optimizer.step()
    steps(fabric, model, optimizer, 1)
    with pytest.raises(RuntimeError, match=r"finished probes\(\) loop"):
        optimizer.step()


def test_a_second_loop_is_refused_whichever_object_opens_it() -> None:
    _, optimizer = set_up(fabric_of())
    loop = optimizer.probes()
    next(loop)
    with pytest.raises(RuntimeError, match="still open"):
        next(optimizer.optimizer.probes())
    loop.close()


def test_a_closure_reaches_sam_through_the_wrapper() -> None:
    fabric = fabric_of()
    model, wrapped = set_up(fabric)

    def closure() -> torch.Tensor:
        loss = loss_of(model, DATA)
        fabric.backward(loss)
        return loss

    for _ in range(2):
        wrapped.step(closure)
    plain = model_of()
    sam_steps(SAM(sgd(plain), plain, rho=0.2), plain, DATA, 2)
    assert_same(tensors(fabric_module(model)), tensors(plain))


def test_a_scheduler_of_the_wrapper_sets_the_rate_of_the_base() -> None:
    fabric = fabric_of()
    model, optimizer = set_up(fabric)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    steps(fabric, model, optimizer, 1)
    scheduler.step()
    assert optimizer.optimizer.base.param_groups[0]["lr"] == 0.05


def scaled(scale: float) -> Fabric:
    # "16-mixed" by name is bfloat16 on CPUs, which needs no scaler.
    scaler = GradScaler("cpu", init_scale=scale, growth_interval=10**6)
    return fabric_of(plugins=MixedPrecision("16-mixed", "cpu", scaler))


def test_a_method_that_has_to_know_the_scale_is_told_it_by_fabric() -> None:
    ends: list[dict[str, torch.Tensor]] = []
    for scale in (1.0, 1024.0):
        fabric = scaled(scale)
        model, optimizer = set_up(fabric, usam)
        precision: Any = fabric.strategy.precision
        for _ in range(3):
            for _ in optimizer.probes(scaler=precision.scaler):
                fabric.backward(loss_of(model, DATA))
            fabric.clip_gradients(model, optimizer, max_norm=MAX_NORM)
            optimizer.step()
        ends.append(tensors(fabric_module(model)))
    for one, other in zip(ends[0].values(), ends[1].values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_an_overflow_skips_the_step_as_fabric_does_without_sam() -> None:
    fabric = scaled(1024.0)
    model, optimizer = set_up(fabric)
    before = {k: v.detach().clone() for k, v in tensors(model).items()}
    for probe in optimizer.probes():
        fabric.backward(loss_of(model, DATA) * (torch.inf if probe.index else 1))
    optimizer.step()
    assert_same(tensors(model), before)
    assert optimizer.param_groups[0]["sam_step"] == 0
    steps(fabric, model, optimizer, 1)
    assert optimizer.param_groups[0]["sam_step"] == 1


def test_bfloat16_by_fabric_is_autocast() -> None:
    fabric = fabric_of(precision="bf16-mixed")
    model, wrapped = set_up(fabric)
    steps(fabric, model, wrapped, 3)
    plain = model_of()
    optimizer = SAM(sgd(plain), plain, rho=0.2)
    x, y = DATA
    for _ in range(3):
        for _ in optimizer.probes():
            with torch.autocast("cpu", torch.bfloat16):
                outputs = plain(x.bfloat16())
            nn.functional.cross_entropy(outputs.float(), y).backward()
        clip_grad_norm_(plain.parameters(), MAX_NORM)
        optimizer.step()
    assert_same(tensors(fabric_module(model)), tensors(plain))

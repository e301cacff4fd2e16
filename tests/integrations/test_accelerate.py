"""Accelerate, where the matrix does not look: what is refused, and what is attached."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from flatmin.integrations.accelerate import probes
from tests.frameworks.accelerate_host import accelerator_of
from tests.frameworks.scenario import Scenario, base_of, batches, loss_of, network

OF = Scenario()


def test_another_optimizer_is_refused_by_name() -> None:
    accelerator, model = accelerator_of(OF), network(OF)
    model, optimizer = accelerator.prepare(model, base_of(model))
    with pytest.raises(TypeError, match=r"is a SGD, no SAM. Write optimizer = "):
        probes(accelerator, model, optimizer)


def test_sam_need_not_be_prepared() -> None:
    accelerator, model = accelerator_of(OF), network(OF)
    sam = SAM(base_of(model), model)
    passes = [
        accelerator.backward(loss_of(model(x), y))
        for x, y in batches()[:1]
        for _ in probes(accelerator, model, sam)
    ]
    assert len(passes) == 2


def test_the_model_of_the_loop_is_attached() -> None:
    accelerator, model = accelerator_of(OF), network(OF)
    sam = SAM(base_of(model), model)
    around = nn.Sequential(model)
    probes(accelerator, around, accelerator.prepare(sam))
    assert sam.model is around


def test_accumulation_may_be_chosen() -> None:
    accelerator, model = accelerator_of(OF), network(OF)
    model, optimizer = accelerator.prepare(model, SAM(base_of(model), model))
    for x, y in batches()[:2]:
        for _ in probes(accelerator, model, optimizer, accumulate=True):
            accelerator.backward(loss_of(model(x), y) / 2)
    optimizer.step()
    assert optimizer.param_groups[0]["sam_step"] == 1


def test_a_closure_under_float16_is_refused_with_the_remedy() -> None:
    accelerator, model = accelerator_of(Scenario(precision="16")), network(OF)
    model, optimizer = accelerator.prepare(model, SAM(base_of(model), model))
    (x, y), *_ = batches()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        accelerator.backward(loss)
        return loss

    closure()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.zero_grad()
    with pytest.raises(RuntimeError, match=r"optimizer.probes\(\): closure\(\)"):
        optimizer.step(closure)
    assert all(map(torch.equal, before, model.parameters()))

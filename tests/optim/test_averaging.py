"""Averages of weights, and the schedule that goes with them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

from flatmin import SAM
from tests.problems import (
    Noisy,
    assert_same,
    batch,
    loss_of,
    mlp,
    plain_steps,
    sam_steps,
    snapshot,
    tensors,
    two_layers,
    untouched,
)
from tests.reference.loop import sam_loop

DATA = batch(torch.float64)
DECAY = 0.75


def sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def sam(model: nn.Module, rho: float = 0.5) -> SAM:
    return SAM(sgd(model), model, rho=rho)


def equal_parts(model: nn.Module) -> AveragedModel:
    return AveragedModel(model)


def exponential(model: nn.Module) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))


def mean(seen: list[Tensor]) -> Tensor:
    return torch.stack(seen).mean(0)


def decayed(seen: list[Tensor]) -> Tensor:
    average = seen[0]
    for w in seen[1:]:
        average = DECAY * average + (1 - DECAY) * w
    return average


Average = tuple[Callable[[nn.Module], AveragedModel], Callable[[list[Tensor]], Tensor]]
AVERAGES: dict[str, Average] = {
    "swa": (equal_parts, mean),
    "ema": (exponential, decayed),
}
every_average = pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES)


def visited(steps: int) -> list[list[Tensor]]:
    """Weights after each step of the reference, by parameter."""
    torch.manual_seed(0)
    model, seen = mlp(), []
    plain = sgd(model)
    for _ in range(steps):
        sam_loop(model, plain, lambda: loss_of(model, DATA), steps=1, rho=0.5)
        seen.append([p.detach().clone() for p in model.parameters()])
    return [list(ws) for ws in zip(*seen, strict=True)]


def assert_average(average: nn.Module, of: Callable[[list[Tensor]], Tensor]) -> None:
    for p, seen in zip(average.parameters(), visited(5), strict=True):
        torch.testing.assert_close(p.detach(), of(seen), rtol=1e-12, atol=1e-13)


@every_average
def test_an_average_updated_after_each_step_is_that_of_the_weights(
    average: Average,
) -> None:
    build, of = average
    torch.manual_seed(0)
    model = mlp()
    optimizer, averaged = sam(model), build(model)
    for _ in range(5):
        sam_steps(optimizer, model, DATA, 1)
        averaged.update_parameters(model)
    assert_average(averaged, of)


@every_average
@pytest.mark.parametrize("door", ["sam", "base"])
def test_an_average_updated_by_a_hook_is_that_of_the_weights(
    door: str, average: Average
) -> None:
    build, of = average
    torch.manual_seed(0)
    model = mlp()
    optimizer, averaged = sam(model), build(model)
    target = optimizer if door == "sam" else optimizer.base
    target.register_step_post_hook(lambda *_: averaged.update_parameters(model))
    sam_steps(optimizer, model, DATA, 5)
    assert_average(averaged, of)


def test_averaged_buffers_are_those_of_one_pass_per_step() -> None:
    model = Noisy().double()
    averaged = AveragedModel(model, use_buffers=True)
    optimizer, seen = sam(model), []
    for _ in range(4):
        sam_steps(optimizer, model, DATA, 1)
        averaged.update_parameters(model)
        seen.append(snapshot(model)["1.running_var"])
    found = snapshot(averaged)["module.1.running_var"]
    torch.testing.assert_close(found, mean(seen), rtol=1e-13, atol=0)
    assert snapshot(model)["1.num_batches_tracked"] == 4


def test_update_bn_measures_the_average_and_training_goes_on() -> None:
    model = Noisy().double()
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    sam_steps(sam(twin), twin, DATA, 6)
    optimizer, averaged = sam(model), AveragedModel(model)
    parts = list(DATA[0].split(4))
    torch.manual_seed(1)
    for _ in range(6):
        sam_steps(optimizer, model, DATA, 1)
        averaged.update_parameters(model)
        stream = torch.get_rng_state()
        with untouched(averaged):
            update_bn(parts, averaged)
        torch.set_rng_state(stream)  # update_bn runs dropout
    assert_same(tensors(model), tensors(twin))
    first = averaged.module.get_submodule("0")
    expected = mean([first(part).detach().mean(0) for part in parts])
    found = snapshot(averaged)["module.1.running_mean"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_an_swa_scheduler_on_sam_has_the_rates_it_has_on_its_base() -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    optimizer, plain = sam(model, rho=0.0), sgd(twin)
    schedules = [
        SWALR(o, swa_lr=0.02, anneal_epochs=4, anneal_strategy="linear")
        for o in (optimizer, plain)
    ]
    rates = []
    for _ in range(6):
        sam_steps(optimizer, model, DATA, 1)
        plain_steps(plain, twin, DATA, 1)
        rates.append(optimizer.base.param_groups[0]["lr"])
        for schedule in schedules:
            schedule.step()
    assert rates == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02, 0.02])
    assert_same(tensors(model), tensors(twin))

"""What would make an average wrong is refused, whichever object is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from flatmin import SAM
from flatmin.averaging import EMA, LAWA, SWA, Average


def network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def average_of(model: nn.Module) -> Average:
    average = EMA(model)
    average.update()
    return average


def test_a_transfer_at_w_plus_eps_is_refused() -> None:
    model = network()
    average = average_of(model)
    refused = []
    for probe in SAM(SGD(model.parameters(), lr=0.1), model).probes():
        model(torch.randn(5, 4)).square().mean().backward()
        if probe.perturbed:
            with pytest.raises(RuntimeError, match=r"transfer\(\) .* w \+ eps"):
                average.transfer()
            refused.append(probe.index)
    assert refused == [1]


def test_a_second_average_does_not_take_the_first_one_for_the_model() -> None:
    model = network()
    first, second = average_of(model), average_of(model)
    with first.applied():
        with pytest.raises(RuntimeError, match=r"update\(\) inside of applied"):
            second.update()
        with pytest.raises(RuntimeError, match="an average already"):
            second.transfer()
    second.update()
    assert second.updates == 2


def test_the_state_of_another_kind_is_refused() -> None:
    model = network()
    state = average_of(model).state_dict()
    for kind in (SWA, LAWA):
        with pytest.raises(ValueError, match=f"no state of {kind.__name__}.*EMA"):
            kind(model).load_state_dict(state)


def test_statistics_of_no_batches_are_refused() -> None:
    model = network()
    average = average_of(model)
    mean: Any = model[1].running_mean
    before = mean.clone()
    used = iter([torch.randn(5, 4)])
    average.refresh(used)
    with pytest.raises(ValueError, match=r"no batches.*iterator"):
        average.refresh(used)
    assert torch.equal(mean, before)
    refreshed = average.state_dict()["statistics"]["1.running_mean"]
    assert not torch.equal(refreshed, torch.zeros(3))


def test_a_model_without_statistics_needs_no_batches() -> None:
    average = average_of(nn.Linear(4, 3))
    average.refresh([])


@pytest.mark.parametrize("kind", [EMA, SWA, LAWA])
def test_an_average_that_begins_in_inference_mode_goes_on(kind: Any) -> None:
    model = nn.Linear(4, 3)
    average, twin = kind(model), kind(model)
    with torch.inference_mode():
        average.update()
    held = average.state_dict()
    tensors = held["average"] if "average" in held else held["latest"][0]
    assert not any(t.is_inference() for t in tensors.values())
    twin.update()
    nn.init.zeros_(model.weight)
    for one in (average, twin):
        one.update()
    with average.applied():
        mine = model.weight.detach().clone()
    with twin.applied():
        assert torch.equal(model.weight, mine)


def test_a_tensor_of_another_shape_is_named() -> None:
    model = network()
    average = average_of(model)
    model[0] = nn.Linear(5, 3)
    with pytest.raises(RuntimeError, match=r"other tensors .* 0\.weight.*new average"):
        average.update()

"""What would make an average wrong is refused, whichever object is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim import SGD

from flatmin import SAM
from flatmin.averaging import EMA, LAWA, SWA, Average
from tests.averaging.trained import copies, equal


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


def itself(model: nn.Module) -> nn.Module:
    return model


def compiled(model: Any) -> Any:
    return torch.compile(model, backend="eager")


def first_layer(model: Any) -> Any:
    return model[0]


VIEWS = [itself, nn.DataParallel, compiled, first_layer]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("inner", VIEWS)
@pytest.mark.parametrize("outer", VIEWS)
def test_averages_see_each_other_through_wrappers(
    outer: Any, inner: Any, frozen: bool
) -> None:
    model = network().requires_grad_(not frozen)
    first, second = average_of(outer(model)), average_of(inner(model))
    own = copies(model)
    with first.applied():
        with pytest.raises(RuntimeError, match=r"update\(\) inside of applied"):
            second.update()
        for door in (second.transfer, second.applied().__enter__):
            with pytest.raises(RuntimeError, match="an average already"):
                door()
        with pytest.raises(RuntimeError, match="an average already"):
            second.refresh([torch.randn(5, 4)])
    assert equal(copies(model), own)
    with second.applied():
        pass
    second.update()
    assert (first.updates, second.updates) == (1, 2)


def test_models_that_share_a_frozen_part_have_their_averages_at_once() -> None:
    part = nn.Linear(4, 4).requires_grad_(False)
    models = [nn.Sequential(part, nn.Linear(4, 3)) for _ in range(2)]
    first, second = map(average_of, models)
    with first.applied():
        second.update()
        with second.applied():
            pass
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


@pytest.mark.parametrize("kind", [EMA, SWA, LAWA])
def test_an_average_that_was_loaded_in_inference_mode_goes_on(kind: Any) -> None:
    model = network()
    twin = kind(model)
    twin.update()
    twin.refresh([torch.randn(5, 4)])
    with torch.inference_mode():
        average = kind(model)
        average.load_state_dict(twin.state_dict())
    held = average.state_dict()
    tensors = held["average"] if "average" in held else held["latest"][0]
    kept = [*tensors.values(), *held["statistics"].values()]
    assert not any(t.is_inference() for t in kept)
    with torch.no_grad():
        next(model.parameters()).zero_()
    for one in (average, twin):
        one.update()
        one.refresh([torch.ones(5, 4)])
    with average.applied():
        mine = copies(model)
    with twin.applied():
        assert equal(copies(model), mine)


@pytest.mark.parametrize("kind", [EMA, SWA, LAWA])
def test_a_layer_without_weights_yet_is_named(kind: Any) -> None:
    state = average_of(nn.Sequential(nn.Linear(4, 3))).state_dict()
    model = nn.Sequential(nn.LazyLinear(3))
    average = kind(model)
    average.load_state_dict(average.state_dict())
    with pytest.raises(RuntimeError, match=r"0\.weight has no shape .* model\(x\)"):
        average.update()
    with pytest.raises(RuntimeError, match=r"0\.weight has no shape .* model\(x\)"):
        EMA(model).load_state_dict(state)
    model(torch.randn(5, 4))
    average.update()
    EMA(model).load_state_dict(state)


def test_statistics_of_another_model_leave_the_average_as_it_is() -> None:
    average, other = average_of(network()), average_of(network())
    state = other.state_dict()
    for statistics in (
        {"2.running_mean": torch.zeros(3)},
        {"1.running_mean": torch.zeros(4)},
    ):
        kept = average.state_dict()
        with pytest.raises(ValueError, match=r"another model: [12]\.running_mean"):
            average.load_state_dict({**state, "updates": 9, "statistics": statistics})
        assert average.updates == 1
        assert average.state_dict()["average"].keys() == kept["average"].keys()
        with average.applied():
            pass


def test_a_tensor_of_another_shape_is_named() -> None:
    model = network()
    average = average_of(model)
    model[0] = nn.Linear(5, 3)
    with pytest.raises(RuntimeError, match=r"other tensors .* 0\.weight.*new average"):
        average.update()


class Adapted(nn.Module):
    """A layer with another one beside it, as adapters of low rank have it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.adapter = nn.Linear(4, 3, bias=False)


def without_parametrizations(model: Any) -> None:
    parametrize.remove_parametrizations(model[0], "weight")


def with_an_adapter(model: Any) -> None:
    model[0] = Adapted(model[0])


def with_another_shape(model: Any) -> None:
    model[1] = nn.BatchNorm1d(7)


def with_a_layer_more(model: Any) -> None:
    model.append(nn.Linear(3, 3))


def with_a_layer_less(model: Any) -> None:
    del model[1]


CHANGES = [
    without_parametrizations,
    with_an_adapter,
    with_another_shape,
    with_a_layer_more,
    with_a_layer_less,
]
DOORS: dict[str, Any] = {
    "update": lambda average: average.update(),
    "applied": lambda average: average.applied().__enter__(),
    "transfer": lambda average: average.transfer(),
    "refresh": lambda average: average.refresh([torch.randn(5, 4)]),
}


@pytest.mark.parametrize("kind", [EMA, SWA, LAWA])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("door", DOORS)
def test_a_model_that_was_changed_is_refused_before_a_write(
    kind: Any, change: Any, door: str
) -> None:
    model = network()
    nn.utils.parametrizations.weight_norm(model[0])
    average = kind(model)
    average.update()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.5)
    average.update()
    average.refresh([torch.randn(5, 4)])
    saved = average.state_dict()
    change(model)
    own = copies(model)
    with pytest.raises(RuntimeError, match=r"other tensors .*: \d\.\w+.*transfer\(\)"):
        DOORS[door](average)
    assert equal(copies(model), own)
    kept = average.state_dict()
    assert kept["updates"] == saved["updates"] == 2
    assert len(kept.get("latest", [])) == len(saved.get("latest", []))

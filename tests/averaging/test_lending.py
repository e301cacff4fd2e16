"""Whatever the tensors of a model are, it gets the average and then its own back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin.averaging import EMA, LAWA, SWA, Average
from tests.averaging.trained import copies, equal

each = pytest.mark.parametrize("kind", [EMA, SWA, LAWA])
Kind = Callable[[nn.Module], Average]


class Net(nn.Module):
    """Layers around a buffer, so that some tensors come before it and some after."""

    mask: Tensor

    def __init__(self, mask: Tensor, persistent: bool = True) -> None:
        super().__init__()
        self.before = nn.Linear(2, 2)
        self.register_buffer("mask", mask, persistent=persistent)
        self.after = nn.Linear(2, 2)


def moved(model: nn.Module, by: float = 1.0) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by)


def averaged(kind: Kind, model: nn.Module) -> Average:
    """An average of the weights as they are and of those one further."""
    average = kind(model)
    average.update()
    moved(model)
    average.update()
    return average


def of_inference() -> Tensor:
    with torch.inference_mode():
        return torch.ones(3, 2)


MASKS: list[Callable[[], Tensor]] = [
    lambda: torch.ones(1, 2).expand(3, 2),
    of_inference,
]
masks = pytest.mark.parametrize("mask", MASKS, ids=["expanded", "of inference"])


@each
@masks
@pytest.mark.parametrize("persistent", [False, True])
def test_a_buffer_that_takes_no_writes_is_left_as_it_is(
    kind: Kind, mask: Callable[[], Tensor], persistent: bool
) -> None:
    model = Net(mask(), persistent)
    average, then = averaged(kind, model), model.mask
    own = copies(model)
    with average.applied():
        assert not torch.equal(model.after.weight, own["after.weight"])
        assert model.mask is then
    assert equal(copies(model), own)
    assert model.mask is then
    average.transfer()
    assert model.mask is then


def test_an_expanded_buffer_has_its_average_for_a_while() -> None:
    model = Net(torch.ones(1, 2).expand(3, 2))
    average = SWA(model)
    average.update()
    model.mask = then = torch.full((1, 2), 3.0).expand(3, 2)
    average.update()
    with average.applied():
        assert torch.equal(model.mask, torch.full((3, 2), 2.0))
    assert model.mask is then
    average.transfer()
    assert torch.equal(model.mask, torch.full((3, 2), 2.0))


def test_a_buffer_of_inference_is_averaged_in_place() -> None:
    model = Net(of_inference())
    average, then = SWA(model), model.mask
    average.update()
    with torch.inference_mode():
        model.mask *= 3
    average.update()
    with average.applied():
        assert torch.equal(model.mask, torch.full((3, 2), 2.0))
    assert model.mask is then
    assert torch.equal(then, torch.full((3, 2), 3.0))


def test_what_is_replaced_in_inference_mode_is_an_ordinary_tensor() -> None:
    model = Net(torch.ones(1, 2).expand(3, 2))
    average = SWA(model)
    average.update()
    model.mask = torch.zeros(1, 2).expand(3, 2)
    average.update()
    with torch.inference_mode():
        average.transfer()
    assert torch.equal(model.mask, torch.full((3, 2), 0.5))
    assert not model.mask.is_inference()


def test_a_buffer_with_two_places_is_replaced_in_both() -> None:
    mask = torch.ones(1, 2).expand(3, 2)
    model = nn.ModuleList([Net(mask), Net(mask)])
    average = SWA(model)
    average.update()
    model[0].mask = model[1].mask = torch.zeros(1, 2).expand(3, 2)
    average.update()
    with average.applied():
        assert model[0].mask is model[1].mask
        assert torch.equal(model[1].mask, torch.full((3, 2), 0.5))


def test_a_parameter_that_takes_no_writes_costs_the_others_nothing() -> None:
    model = Net(torch.ones(3, 2))
    model.before.weight = nn.Parameter(torch.ones(1, 2).expand(2, 2), False)
    average = SWA(model)
    average.update()
    with average.applied():
        pass
    moved(model.after)
    model.before.weight = nn.Parameter(torch.zeros(1, 2).expand(2, 2), False)
    average.update()
    own = copies(model)
    refused = pytest.raises(RuntimeError, match=r"before\.weight cannot be written")
    with refused, average.applied():
        pytest.fail("the model has a part of the average")
    assert equal(copies(model), own)


@pytest.mark.parametrize("number", [0.0, torch.nan])
def test_buffers_come_back_with_their_signs(number: float) -> None:
    model = Net(torch.full((3, 2), -number))
    average, own = averaged(EMA, model), model.mask.clone()
    with average.applied():
        model.mask.copy_(torch.full((3, 2), number))
    assert torch.equal(model.mask.view(torch.int32), own.view(torch.int32))


def test_a_model_without_values_takes_a_transfer() -> None:
    model = Net(torch.ones(3, 2)).to("meta")
    average = averaged(EMA, model)
    average.transfer()
    assert model.mask.is_meta


def turned_narrow(model: Net) -> None:
    model.half()


def with_another_parameter(model: Net) -> None:
    model.after.weight = nn.Parameter(torch.zeros(2, 2))


def with_a_larger_parameter(model: Net) -> None:
    model.after.weight.data = torch.zeros(4, 4)


def with_an_expanded_parameter(model: Net) -> None:
    model.before.weight.data = torch.zeros(1, 2).expand(2, 2)


def with_a_new_layer(model: Net) -> None:
    model.add_module("adapter", nn.Linear(2, 2))


def without_a_layer(model: Net) -> None:
    del model.after


CHANGES = [
    turned_narrow,
    with_another_parameter,
    with_a_larger_parameter,
    with_an_expanded_parameter,
    with_a_new_layer,
    without_a_layer,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_model_within_is_reported_and_undone(change: Any) -> None:
    model = Net(torch.ones(3, 2))
    average, places = averaged(EMA, model), dict(model.named_parameters())
    own = copies(model)
    reported = pytest.raises(RuntimeError, match=r"was changed inside of applied")
    with reported, average.applied():
        change(model)
    after = copies(model)
    assert all(torch.equal(after[name], t) for name, t in own.items() if name in after)
    assert all(after[name].dtype == t.dtype for name, t in own.items() if name in after)
    assert all(torch.equal(p, own[name]) for name, p in places.items())


class Locked(Tensor):
    """Takes no writes once it is locked."""

    locked = False

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        writes = func is Tensor.copy_ or func.__name__ == "__set__"
        if writes and cls.locked:
            raise RuntimeError("locked")
        return super().__torch_function__(func, types, args, kwargs or {})


def test_one_parameter_that_is_lost_does_not_cost_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Net(torch.ones(3, 2))
    model.before.weight = nn.Parameter(torch.ones(2, 2).as_subclass(Locked))
    average, own = averaged(EMA, model), copies(model)
    lost = pytest.raises(RuntimeError, match=r"before\.weight cannot be .*: locked")
    with lost, average.applied():
        monkeypatch.setattr(Locked, "locked", True)
    del own["before.weight"]
    after = copies(model)
    assert [name for name, t in own.items() if not torch.equal(after[name], t)] == []


def test_a_buffer_that_grew_in_place_is_as_it_was() -> None:
    model = Net(torch.ones(3, 2))
    average = averaged(EMA, model)
    with average.applied():
        model.mask.resize_(5, 5)
    assert torch.equal(model.mask, torch.ones(3, 2))


class Refusing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("refused")


def test_modes_come_back_when_singular_vectors_cannot_be_computed() -> None:
    model = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)).eval()
    average, own = averaged(EMA, model), copies(model)
    held: Any = model
    held.parametrizations.weight.append(Refusing().eval())
    with pytest.raises(RuntimeError, match="refused"), average.applied():
        pytest.fail("the model has no singular vectors of the average")
    assert not any(module.training for module in model.modules())
    assert equal(copies(model), own)

"""What Flat-LoRA refuses, with the line to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from flatmin.methods import flat_lora
from tests.methods.lora import adapted, flat, layer, loop, train, weights
from tests.problems import untouched


def merge(model: Any) -> None:
    model.merge_adapter()


def disable(model: Any) -> None:
    model.base_model.disable_adapter_layers()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (merge, r"merged into its weight.*Write model\.unmerge_adapter\(\)"),
        (disable, r"are disabled\. Write model\.enable_adapter_layers\(\)"),
    ],
)
def test_a_state_in_which_adapters_do_not_train_is_refused_in_every_step(
    change: Callable[[Any], None], said: str
) -> None:
    model = adapted()
    optimizer = flat(model)
    train(optimizer, model, 2)
    change(model)
    # peft freezes what it disables.
    for name, p in model.named_parameters():
        p.requires_grad_("lora" in name)
    with untouched(model), pytest.raises(ValueError, match=said):
        loop(optimizer, model)


def test_dora_is_refused() -> None:
    said = r"adapter 'default' is a variant of LoRA \(Dora.*LoraConfig\(use_dora=False"
    with pytest.raises(ValueError, match=said):
        flat(adapted(use_dora=True))


def test_an_adapter_of_another_peft_that_says_dora_is_refused() -> None:
    model = adapted()
    own = layer(model)
    del own.lora_variant
    own.use_dora["default"] = True
    with pytest.raises(ValueError, match=r"variant of LoRA \(DoRA\)"):
        flat(model)


class Odd(nn.Module):
    """An embedding, a convolution and an attention, all with adapters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.convolution = nn.Conv1d(6, 6, 3)
        self.attention = nn.MultiheadAttention(6, 2)
        self.experts = nn.ParameterDict({"weight": torch.ones(2, 6, 6)})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("embedding", "its Embedding is no linear layer"),
        ("convolution", "its Conv1d is no linear layer"),
        ("attention", "the weight of its MultiheadAttention is a NoneType"),
    ],
)
def test_what_is_no_linear_layer_is_refused_by_name(name: str, said: str) -> None:
    config = peft.LoraConfig(target_modules=[name], r=2)
    model = peft.get_peft_model(Odd(), config)
    refused = rf"LoRA layer 'base_model\.model\.{name}': {said}.*linear layers"
    with pytest.raises(ValueError, match=refused):
        flat(model)


def test_a_parameter_as_the_target_is_refused() -> None:
    config = peft.LoraConfig(target_parameters=["1.weight"], r=2)
    model = peft.get_peft_model(nn.Sequential(nn.ReLU(), nn.Linear(6, 3)), config)
    with pytest.raises(ValueError, match="is no linear layer"):
        flat(model)


class Packed(nn.Parameter):
    """As a quantised weight of bitsandbytes: a kind of its own, in integers."""


def test_a_quantised_weight_is_refused() -> None:
    model = adapted()
    base = layer(model).get_base_layer()
    packed = torch.zeros(8, 4, dtype=torch.uint8)
    base.weight = Packed(packed, requires_grad=False)
    said = r"its Linear is a Packed of torch\.uint8: quantised.*quantization_config"
    with pytest.raises(ValueError, match=said):
        flat(model)


class Pair(Tensor):
    """As a weight of torchao's: made of other tensors."""


def test_a_sharded_weight_is_refused() -> None:
    class Cut(nn.Parameter):
        device_mesh = None  # What tells a DTensor.

    model = adapted()
    inner = layer(model).get_base_layer()
    inner.weight = Cut(inner.weight.detach(), requires_grad=False)
    with pytest.raises(ValueError, match=r"sharded \(DTensor\).*flatmin\.SAM"):
        flat(model)


def test_a_weight_that_is_made_of_others_is_refused() -> None:
    model = adapted()
    base = layer(model).get_base_layer()
    del base.weight
    base.weight = torch.zeros(8, 8).as_subclass(Pair)
    with pytest.raises(ValueError, match=r"is a Pair of torch\.float32: quantised"):
        flat(model)


def test_a_weight_that_is_not_here_is_refused() -> None:
    model = adapted()
    base = layer(model).get_base_layer()
    base.weight = nn.Parameter(torch.empty(8, 8, device="meta"), requires_grad=False)
    with pytest.raises(ValueError, match=r"offloaded.*device_map"):
        flat(model)


def test_two_layers_with_one_weight_are_refused() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    net[1].weight = net[0].weight
    config = peft.LoraConfig(target_modules=["0", "1"])
    with pytest.raises(ValueError, match=r"share one \(tied weights\)"):
        flat(peft.get_peft_model(net, config))


def test_a_model_without_adapters_is_refused_with_the_line_to_write() -> None:
    model = nn.Sequential(nn.Linear(6, 3))
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"Sequential has none.*get_peft_model"):
        flat_lora(base, model, steps=10)


def test_adapters_that_the_base_does_not_train_do_not_count() -> None:
    model = adapted()
    bias = layer(model).get_base_layer().bias
    base = torch.optim.SGD([bias.requires_grad_()], lr=0.1)
    with pytest.raises(ValueError, match="that the base trains"):
        flat_lora(base, model, steps=10)


def assert_the_first_layer_alone_moves(optimizer: SAM, model: Any) -> None:
    before = [w.detach().clone() for w in weights(model)]
    optimizer.param_groups[0]["sam_step"] = 5
    for _ in optimizer.probes():
        same = [torch.equal(w, b) for w, b in zip(weights(model), before, strict=True)]
        assert same == [False, True]
        model(torch.ones(2, 6).double()).sum().backward()


def test_an_adapter_that_is_not_active_does_not_count() -> None:
    model = adapted()
    more = adapted(target_modules=["1"]).peft_config["default"]
    model.add_adapter("more", more)
    model.set_adapter("more")
    assert_the_first_layer_alone_moves(flat(model), model)


def test_a_layer_without_an_active_adapter_stays_even_if_it_is_trained() -> None:
    model = adapted()
    weights(model)[1].requires_grad_()
    optimizer = flat(model)
    layer(model, "4")._active_adapter = []
    assert_the_first_layer_alone_moves(optimizer, model)


def test_weights_that_are_not_finite_are_not_perturbed() -> None:
    model = adapted()
    optimizer = flat(model)
    optimizer.param_groups[0]["sam_step"] = 5
    before = [w.detach().clone() for w in weights(model)]
    weights(model)[0].data[0, 0] = before[0][0, 0] = torch.inf
    for _ in optimizer.probes():
        assert all(map(torch.equal, weights(model), before))
        model(torch.ones(2, 6).double()).sum().backward()
    assert optimizer.unperturbed_steps == 1


def test_a_layer_of_vectors_is_refused() -> None:
    model = adapted()
    own = layer(model)
    own.lora_A["default"] = nn.Module()
    own.lora_A["default"].weight = nn.Parameter(torch.ones(8))
    with pytest.raises(ValueError, match="is no linear layer"):
        flat(model)

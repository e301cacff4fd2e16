"""Flat-LoRA on peft's layers against its formula, written out."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from flatmin.methods import flat_lora
from tests.methods.against import BETAS, STEPS, batch_of, close
from tests.reference import lora
from tests.reference.bases import AdamW, Sgd

RHO = 0.3


class Gpt2Like(nn.Sequential):
    """Layers that hold the transpose of their weights, as those of GPT-2 do."""

    def __init__(self) -> None:
        super().__init__(Conv1D(8, 6), nn.Tanh(), Conv1D(3, 8))


class Plain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def adapted(net: nn.Module, **options: Any) -> Any:
    """With adapters that do something from the start."""
    chosen = {"r": 2, "lora_alpha": 3, "init_lora_weights": False, **options}
    chosen["fan_in_fan_out"] = isinstance(net, Gpt2Like)
    config = peft.LoraConfig(target_modules=["0", "2"], **chosen)
    return peft.get_peft_model(net, config).double()


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def base_of(kind: str, parameters: list[nn.Parameter]) -> Any:
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3)
    return torch.optim.AdamW(parameters, lr=0.01, betas=BETAS, weight_decay=1e-3)


def reference_of(kind: str) -> Sgd | AdamW:
    decays = [1e-3] * 4
    if kind == "sgd":
        return Sgd([0.05] * 4, 0.9, decays)
    return AdamW([0.01] * 4, BETAS, 1e-8, decays)


def documented(turned: bool) -> lora.Draw:
    """The draw of docs/lora.md, row by row of W also where a layer holds ``W^T``."""

    def draw(step: int, layer: int, size: torch.Size) -> Tensor:
        stream = torch.Generator().manual_seed(step * 1_000_003 + 500_000 + layer)
        held = size[::-1] if turned else size
        z = torch.randn(held, generator=stream).double()
        return z.T if turned else z

    return draw


def loss_on(step: int, biases: list[Tensor], s: float) -> lora.LoraLoss:
    x, y = batch_of(step)

    def loss(frozen: list[Tensor], factors: list[Tensor]) -> Tensor:
        a, b, c, d = factors
        hidden = torch.tanh(x @ (frozen[0] + s * b @ a).T + biases[0])
        return F.cross_entropy(hidden @ (frozen[1] + s * d @ c).T + biases[1], y)

    return loss


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("net", [Plain, Gpt2Like])
@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_flat_lora_equals_its_formula(
    kind: str, net: type[nn.Sequential], rank_stabilised: bool
) -> None:
    torch.manual_seed(1)
    model = adapted(net(), use_rslora=rank_stabilised)
    turned = net is Gpt2Like
    bases = [model.get_submodule(f"base_model.model.{i}.base_layer") for i in "02"]
    frozen = [layer.weight.detach().clone() for layer in bases]
    start = [p.detach().clone() for p in trainable(model)]
    s = 3 / (2**0.5 if rank_stabilised else 2)
    biases = [layer.bias.detach() for layer in bases]

    optimizer = flat_lora(base_of(kind, trainable(model)), model, rho=RHO, steps=20)
    for k in range(STEPS):
        x, y = batch_of(k)
        for _ in optimizer.probes():
            F.cross_entropy(model(x), y).backward()
        optimizer.step()

    expected = lora.flat_lora(
        [loss_on(k, biases, s) for k in range(STEPS)],
        [w.T if turned else w for w in frozen],
        start,
        reference_of(kind),
        documented(turned),
        scaling=s,
        rho=RHO,
        steps=20,
    )
    close([*trainable(model)], expected)
    for layer, w in zip(bases, frozen, strict=True):
        assert torch.equal(layer.weight, w)

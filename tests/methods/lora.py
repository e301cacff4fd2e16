"""A small net with peft's adapters, and Flat-LoRA around it."""

from __future__ import annotations

from typing import Any

import peft
import torch
from torch import Tensor, nn

from flatmin import SAM
from flatmin.methods import flat_lora
from tests.problems import Batch, batch, loss_of

RHO, STEPS = 0.3, 10


class Net(nn.Sequential):
    """Two layers with adapters, ``1`` and ``4``, and a frozen one without."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(6, 8),
            nn.Linear(8, 8),
            nn.Tanh(),
            nn.Dropout(0.2),
            nn.Linear(8, 3),
        )


def adapted(dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """With adapters that do something from the start, and alike in every call."""
    torch.manual_seed(1)
    net = Net().to(dtype)
    chosen = {"r": 2, "init_lora_weights": False, "lora_dropout": 0.1, **options}
    config = peft.LoraConfig(**{"target_modules": ["1", "4"], **chosen})
    return peft.get_peft_model(net, config, autocast_adapter_dtype=False)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def layer(model: nn.Module, name: str = "1") -> Any:
    """peft's layer around the one of this name."""
    return model.get_submodule(f"base_model.model.{name}")


def weights(model: nn.Module) -> list[Tensor]:
    """The frozen weights of the layers with adapters."""
    return [layer(model, name).get_base_layer().weight for name in "14"]


def flat(model: nn.Module, **options: Any) -> SAM:
    base = torch.optim.SGD(trainable(model), lr=0.1, momentum=0.9)
    chosen: dict[str, Any] = {"rho": RHO, "steps": STEPS, **options}
    return flat_lora(base, model, **chosen)


def data(dtype: torch.dtype = torch.float64) -> Batch:
    return batch(dtype)


def loop(optimizer: SAM, model: nn.Module, inputs: Batch | None = None) -> None:
    """The passes of a step; what is random depends on the step alone."""
    torch.manual_seed(optimizer.param_groups[0]["sam_step"])
    for probe in optimizer.probes():
        loss = loss_of(model, inputs or data())
        loss.backward()
        probe.loss = loss


def train(
    optimizer: SAM, model: nn.Module, n: int, inputs: Batch | None = None
) -> None:
    for _ in range(n):
        loop(optimizer, model, inputs)
        optimizer.step()

"""Every method with options under which its parts show within a few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer

from flatmin import SAM
from flatmin.methods import METHODS
from flatmin.optim import Probe
from tests.problems import Batch, Noisy

NAMES = tuple(METHODS)

OPTIONS: dict[str, dict[str, Any]] = {
    "layer_sam": {"rho": 0.05},
    "usam": {"rho": 0.1},
    "sam_on": {"rho": 0.5},
    "stale_sam": {"rho": 0.1},
    "momentum_sam": {"rho": 0.1},
    "interval_sam": {"k": 3},
    "looksam": {"k": 3},
    "late_sam": {"steps": 20, "share": 0.7},
    "late_subset_sam": {"steps": 20, "late": 0.7, "share": 0.5, "ramp": 0.2},
    "ae_sam": {"steps": 20},
    "split_rwp": {"steps": 20, "rho": 0.1},
    "ire": {"rho": 1.0, "every": 3, "start": 1},
    "subset_sam": {"share": 0.5},
    "k_sam": {"share": 0.5},
    "matched_sam": {"share": 0.5, "decay": 0.8},
    "esam": {"beta": 0.7, "gamma": 0.5},
    # Pairs of examples, because BatchNorm refuses a single one.
    "sparse_sam": {"every": 4, "samples": 3, "m": 2},
    "lookbehind_sam": {"k": 3},
    "bsam": {"n": 50, "precision": 5.0},
    "flat_lora": {"steps": 20, "rho": 0.5},
}


class Adapted(nn.Linear):
    """A linear layer that trains, with an adapter as it begins: ``s B A = 0``."""

    active_adapters = ("default",)

    @property
    def scaling(self) -> dict[str, float]:
        return {"default": 2.0}

    @property
    def lora_A(self) -> dict[str, Any]:
        return {"default": SimpleNamespace(weight=torch.ones(1, self.in_features))}

    @property
    def lora_B(self) -> dict[str, Any]:
        return {"default": SimpleNamespace(weight=torch.zeros(self.out_features, 1))}

    def get_base_layer(self) -> nn.Linear:
        return self


def prepare(name: str, model: nn.Module) -> None:
    """For a method of adapters, make LoRA layers of linear ones; all compute alike."""
    for layer in model.modules() if name == "flat_lora" else ():
        if type(layer) is nn.Linear:
            layer.__class__ = Adapted


def sgd(parameters: Iterable[Tensor]) -> SGD:
    return SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)


def adamw(parameters: Iterable[Tensor]) -> AdamW:
    return AdamW(parameters, lr=0.01, weight_decay=0.05)


BASES: dict[str, Callable[[Iterable[Tensor]], Optimizer]] = {
    "sgd": sgd,
    "adamw": adamw,
}


def base_for(name: str, parameters: Iterable[Tensor], base: str = "sgd") -> Optimizer:
    """A base optimizer that the method of this name can have."""
    if name == "bsam":
        return SGD(parameters, lr=0.1)
    return BASES[base](parameters)


def built(name: str, model: nn.Module, base: str = "sgd", **options: Any) -> SAM:
    """The method of this name around a new base optimizer."""
    chosen = {**OPTIONS.get(name, {}), **options}
    prepare(name, model)
    made = base_for(name, model.parameters(), base)
    return METHODS[name].build(made, model, **chosen)


#: What each method says of itself; test_traits holds it against what it does.
TRAITS = {name: built(name, Noisy()).method.traits for name in NAMES}


def data_of(step: int, dtype: torch.dtype = torch.float64, n: int = 12) -> Batch:
    """The batch of a step; two steps in a row share one."""
    draw = torch.Generator().manual_seed(100 + step // 2)
    x = torch.randn(n, 6, generator=draw, dtype=torch.float64)
    return x.to(dtype), torch.randint(3, (n,), generator=draw)


def index_of(optimizer: SAM) -> int:
    return optimizer.param_groups[0]["sam_step"]


def whole(probe: Probe, losses: Tensor) -> Tensor:
    """The losses; those of the first half are the flat part."""
    flat = torch.arange(len(losses)) < len(losses) / 2
    return probe.total(flat=losses * flat, rest=losses * ~flat)


def answer(
    probe: Probe, model: nn.Module, data: Batch, factor: float | Tensor = 1.0
) -> None:
    """The body of a loop that serves every method."""
    x, y = probe.take(*data)
    losses = F.cross_entropy(model(x), y, reduction="none")
    probe.backward(whole(probe, losses * factor))
    probe.loss = losses.mean()


def loop(optimizer: SAM, model: nn.Module, data: Batch | None = None) -> None:
    """The passes of one step, whose data and dropout depend on the step alone."""
    step = index_of(optimizer)
    torch.manual_seed(step)
    for probe in optimizer.probes():
        answer(probe, model, data or data_of(step))


def train(optimizer: SAM, model: nn.Module, n: int) -> None:
    for _ in range(n):
        loop(optimizer, model)
        optimizer.step()


def states(optimizer: SAM) -> dict[str, Tensor]:
    """All tensors of the state by position and name."""
    return {
        f"{k}.{name}": value.detach().clone()
        for k, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }

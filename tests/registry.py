"""Every optimizer configuration that the contract tests run over, as data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from lion_pytorch import Lion
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin import SAM


@dataclass(frozen=True)
class Base:
    """A base optimizer; ``copies`` is False if it cannot be deep-copied itself."""

    name: str
    kind: Callable[..., Optimizer]
    options: dict[str, Any]
    copies: bool = True

    def build(self, parameters: Iterable[Tensor]) -> Optimizer:
        return self.kind(parameters, **self.options)


@dataclass(frozen=True)
class Row:
    """A SAM around a base."""

    name: str
    base: Base
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, model: nn.Module) -> SAM:
        return SAM(self.base.build(model.parameters()), model, **self.options)


_optim = torch.optim
MOMENTUM = Base("momentum", _optim.SGD, {"lr": 0.1, "momentum": 0.9})

BASES = [
    Base("sgd", _optim.SGD, {"lr": 0.1}),
    MOMENTUM,
    Base(
        "nesterov",
        _optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    ),
    Base("adamw", _optim.AdamW, {"lr": 0.01, "weight_decay": 0.05}),
    Base("amsgrad", _optim.AdamW, {"lr": 0.01, "amsgrad": True}),
    Base("adam-loop", _optim.Adam, {"lr": 0.01, "foreach": False}),
    Base("rmsprop", _optim.RMSprop, {"lr": 0.01, "momentum": 0.5}),
    # Its own groups have a key "rho".
    Base("adadelta", _optim.Adadelta, {"lr": 0.5, "rho": 0.8}),
    # Not torch's; keeps attributes that torch's own pickling of optimizers drops.
    Base("lion", Lion, {"lr": 0.01, "weight_decay": 0.1}, copies=False),
]

ROWS = [Row(f"sam-{base.name}", base) for base in BASES] + [
    Row("sam-p1", MOMENTUM, {"p": 1.0}),
    Row("sam-p1.5", MOMENTUM, {"p": 1.5}),
    Row("sam-pinf", MOMENTUM, {"p": math.inf, "rho": 0.01}),
    Row("sam-group", MOMENTUM, {"norm_over": "group"}),
    Row("sam-cosine", MOMENTUM, {"track": True}),
    Row("sam-unprotected", MOMENTUM, {"protect_buffers": False, "replay_rng": False}),
]


def name_of(row: Base | Row) -> str:
    return row.name

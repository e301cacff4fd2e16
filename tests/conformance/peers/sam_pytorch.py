"""The package sam-pytorch: ``step(closure)`` makes both passes."""

from __future__ import annotations

from typing import Any

from sam.sam import SAM  # pyright: ignore[reportMissingImports]
from torch import nn

from flatmin.conformance import Adapter, Base


def build(base: Base, model: nn.Module, rho: float) -> Any:
    return SAM(model.parameters(), base.build(model), rho=rho)


def step(optimizer: Any, model: nn.Module, loss: Any) -> None:
    def closure() -> Any:
        model.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def closure_step(optimizer: Any, closure: Any) -> Any:
    return optimizer.step(closure)


def base_of(optimizer: Any) -> Any:
    return optimizer.optim


sam = Adapter(
    name="sam-pytorch",
    build=build,
    step=step,
    closure_step=closure_step,
    handle=base_of,
)

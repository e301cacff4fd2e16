"""The package sam-pytorch: ``step(closure)`` makes both passes."""

from __future__ import annotations

from typing import Any

from sam.sam import SAM  # pyright: ignore[reportMissingImports]
from torch import nn

from flatmin.conformance import Adapter, Base
from tests.conformance.peers.closures import closure_step, micro_batches, step


def build(base: Base, model: nn.Module, rho: float) -> Any:
    return SAM(model.parameters(), base.build(model), rho=rho)


def base_of(optimizer: Any) -> Any:
    return optimizer.optim


sam = Adapter(
    name="sam-pytorch",
    build=build,
    step=step,
    closure_step=closure_step,
    micro_batches=micro_batches,
    handle=base_of,
)

"""The package temperon, with the tail that its documentation calls full-time SAM.

It says that accumulation and DistributedDataParallel are not supported, so that it has
no door for them; a scheduler takes the base optimizer.
"""

from __future__ import annotations

from typing import Any

from temperon import Temperon  # pyright: ignore[reportMissingImports]
from torch import nn

from flatmin.conformance import Adapter, Base
from tests.conformance.peers.closures import closure_step, step


def build(base: Base, model: nn.Module, rho: float) -> Any:
    return Temperon(base.build(model), total_steps=10**6, tail_frac=1.0, rho=rho)


def base_of(optimizer: Any) -> Any:
    return optimizer.optimizer


sam = Adapter(
    name="temperon",
    build=build,
    step=step,
    closure_step=closure_step,
    handle=base_of,
)

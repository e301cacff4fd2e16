"""What packages share whose ``step(closure)`` makes both passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def step(optimizer: Any, model: nn.Module, loss: Any) -> None:
    def closure() -> Any:
        model.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def closure_step(optimizer: Any, closure: Any) -> Any:
    return optimizer.step(closure)


def micro_batches(optimizer: Any, model: nn.Module, losses: list[Any]) -> None:
    """All micro-batches are in the closure and share one perturbation."""
    step(optimizer, model, lambda: torch.stack([loss() for loss in losses]).sum())

"""SAM for p = 2 as one would write it around a module and a plain optimizer.

Moves the weights in place, so that it runs what a function of a list of weights cannot:
parametrizations, hooks, flattened RNN weights. Without a line of the package it is
there to check; the model must be without dropout and buffers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def sam_loop(
    model: nn.Module,
    base: Optimizer,
    loss: Callable[[], Tensor],
    *,
    steps: int,
    rho: float,
    before_step: Callable[[], object] = lambda: None,
) -> None:
    """``before_step`` sees the vector to descend in ``.grad``, at ``w``."""
    for _ in range(steps):
        base.zero_grad()
        loss().backward()
        moved = [p for p in model.parameters() if p.grad is not None]
        w = [p.detach().clone() for p in moved]
        _climb(moved, rho)
        base.zero_grad()
        loss().backward()
        with torch.no_grad():
            for p, start in zip(moved, w, strict=True):
                p.copy_(start)
        before_step()
        base.step()


@torch.no_grad()
def _climb(moved: list[nn.Parameter], rho: float) -> None:
    g = [p.grad for p in moved if p.grad is not None]
    length = torch.stack([t.double().square().sum() for t in g]).sum().sqrt()
    for p, t in zip(moved, g, strict=True):
        p.copy_(p.double() + rho * t.double() / length)

"""The loss as a module, whose weights `torch.func.functional_call` replaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.diagnostics._criterion import BatchLoss
from flatmin.diagnostics._objective import Objective


class Loss(nn.Module):
    """`Objective.loss_of`, because `functional_call` takes modules.

    It swaps the weights of the objective's own model, so that a ``forward`` that refers
    to the model by itself sees them too.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.model = objective.model
        self.objective = objective

    def forward(self, batch: Any) -> BatchLoss:
        return self.objective.loss_of(batch)


def names(module: nn.Module, w: Sequence[Tensor]) -> list[str]:
    """Return the names that parameters have in a module."""
    of = {id(p): name for name, p in module.named_parameters()}
    return [of[id(p)] for p in w]


def reads(result: Tensor, w: Sequence[Tensor]) -> bool:
    """Whether a result was computed from some of the weights ``w``, by its graph.

    `functional_call` swaps attributes of modules, and a copy of a model has parameters
    of its own. A weight that is read from a list, a partial or a closure is the old one
    all the same. So if the new weights are detached, the old ones alone can be in the
    graph. The result must come from a pass with gradients enabled, over a batch that
    requires none.
    """
    if not result.requires_grad:
        return False
    # torch does not say that a gradient may be None.
    found: Any = torch.autograd.grad(result.sum(), [*w], allow_unused=True)
    return any(g is not None for g in found)

"""The loss as a module, whose weights `torch.func.functional_call` replaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flatmin.core import _tensors as ts
from flatmin.diagnostics._criterion import BatchLoss
from flatmin.diagnostics._objective import Objective

#: Gradients of one batch differ by rounding, and on some devices by order of sums.
_ALIKE = 1e-2


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


def is_replaceable(objective: Objective) -> bool:
    """Whether `functional_call` replaces all weights that the loss reads.

    It swaps attributes of modules. A model that reads a weight from a list, a partial
    or a closure reads the old one there, and the gradient lacks that part.
    """
    for batch in objective.batches():
        _, whole = objective.gradient_of(batch)
        found = _functional_gradient(objective, batch)
        off = ts.norm([a - b for a, b in zip(found, whole, strict=True)])
        return not bool(off > _ALIKE * ts.norm(whole))
    return True


def _functional_gradient(objective: Objective, batch: Any) -> Sequence[Tensor]:
    loss = Loss(objective)
    w = [p.detach().requires_grad_() for p in objective.w]
    named = dict(zip(names(loss, objective.w), w, strict=True))
    with torch.enable_grad():
        total = functional_call(loss, named, (batch,)).total
    return torch.autograd.grad(total, w, materialize_grads=True)

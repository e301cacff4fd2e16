"""SAM by hand on copies of the model: each pass has a model of its own."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module], Tensor]


def streams() -> tuple[Any, ...]:
    """Where the global random streams are."""
    # Models that mask their input draw from NumPy's global stream.
    numpy = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state(), random.getstate(), numpy


def rewind(state: tuple[Any, ...]) -> None:
    """Take them there."""
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    np.random.set_state(state[2])  # noqa: NPY002


def step_on_copies(
    model: nn.Module, loss: Loss, names: list[str], *, rho: float, lr: float
) -> None:
    """One step of SAM around SGD; ``model`` is left as the first pass left it.

    Args:
        model: is trained in place.
        loss: runs a model.
        names: of the parameters to train.
        rho: the radius.
        lr: the learning rate.
    """
    start = streams()
    away = copied(model)
    g = gradients(model, loss, names)
    size = torch.sqrt(sum(((a**2).sum() for a in g if a is not None), torch.zeros(())))
    end = streams()
    rewind(start)
    with torch.no_grad():
        for p, a in zip(parameters(away, names), g, strict=True):
            if a is not None:
                p.add_(rho * a / size)
    h = gradients(away, loss, names)
    rewind(end)
    with torch.no_grad():
        for p, a in zip(parameters(model, names), h, strict=True):
            if a is not None:
                p.sub_(lr * a)


def copied(model: nn.Module) -> nn.Module:
    """A copy that shares results of earlier passes, which torch does not copy."""
    kept = [v for m in model.modules() for v in [*vars(m).values(), *m.buffers(False)]]
    results = [v for v in kept if isinstance(v, Tensor) and not v.is_leaf]
    return copy.deepcopy(model, {id(v): v for v in results})


def gradients(model: nn.Module, loss: Loss, names: list[str]) -> list[Tensor | None]:
    """The gradient by name, None where there is none."""
    value = loss(model)
    ps = parameters(model, names)
    return list(torch.autograd.grad(value, ps, allow_unused=True))


def parameters(model: nn.Module, names: list[str]) -> list[Tensor]:
    """The parameters of these names, also of a copy of a scripted module."""
    every = dict(model.named_parameters())
    return [every[name] for name in names]

"""How flat the loss is around weights in training or after it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin import diagnostics

#: Images and the labels that are trained, in memory.
Batches = Iterable[tuple[Tensor, Tensor]]


def flatness(
    model: nn.Module,
    batches: Batches,
    rho: float,
    group: dist.ProcessGroup | None = None,
) -> dict[str, float]:
    """How flat the loss on the training set is, with the labels trained on.

    BatchNorm uses its running statistics, so that the loss is a function of the
    weights alone. What cannot be measured, for instance because training has diverged,
    is NaN, and a RuntimeWarning says why: whoever has trained for days gets the rest.
    Label smoothing and mixup have no part in this loss.

    Args:
        model: the network; it is put into evaluation mode.
        batches: this process's part of the training set.
        rho: the radius of the sharpness.
        group: of the processes that share the set.

    Returns:
        ``sharpness`` and ``lambda_max``.
    """
    numbers = {"sharpness": math.nan, "lambda_max": math.nan}
    with _tried("sharpness or lambda_max"):
        objective = _objective(model, batches, group)
        numbers["sharpness"] = diagnostics.sharpness(objective, rho).value
        numbers["lambda_max"] = diagnostics.eigenvalues(objective, 1, tol=0.01).value
    return numbers


def spectrum(
    model: nn.Module, batches: Batches, group: dist.ProcessGroup | None = None
) -> dict[str, float]:
    """What the paper's Figure 3 follows through training; arguments as of `flatness`.

    Returns:
        ``lambda_max`` and ``lambda_ratio``, lambda_max / lambda_5.
    """
    numbers = {"lambda_max": math.nan, "lambda_ratio": math.nan}
    with _tried("the spectrum"):
        found = diagnostics.eigenvalues(_objective(model, batches, group), 5, tol=0.01)
        numbers |= {"lambda_max": found.value, "lambda_ratio": found.ratio}
    return numbers


@contextmanager
def _tried(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError) as error:
        warnings.warn(f"{what} is not known: {error}", RuntimeWarning, stacklevel=4)


def _objective(
    model: nn.Module, batches: Batches, group: dist.ProcessGroup | None
) -> diagnostics.Objective:
    return diagnostics.Objective(
        model.eval(), cross_entropy, list(batches), group=group
    )

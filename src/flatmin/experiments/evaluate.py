"""Measure a network: errors, predictions, flatness, and means over training steps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from flatmin import diagnostics
from flatmin.experiments.batches import Batch
from flatmin.experiments.tasks import CLASSIFY, Forecasted, Task, Tested, likeliest

#: Examples and the labels that are trained, in memory.
Images = Iterable[tuple[Tensor, Tensor]]


@torch.no_grad()
def tested(
    fabric: Fabric, model: nn.Module, batches: Iterable[Batch], task: Task
) -> tuple[Tested | Forecasted, list[Tensor]]:
    """Errors on the examples of all processes, and what is predicted for this one's.

    Args:
        fabric: of the processes that share the examples.
        model: the network; it is put into evaluation mode.
        batches: this process's examples; fillers have the label `IGNORED`.
        task: says what an error is.

    Returns:
        The numbers, and `Task.likeliest` of each batch.
    """
    model.eval()
    found, predicted = list[Tensor](), list[Tensor]()
    for x, y in batches:
        outputs = model(x)
        found.append(task.sums(outputs, y))
        predicted += task.likeliest(outputs)
    sums = _zeros(fabric.device, len(found[0]))
    for one in found:
        sums += one
    return task.tested(_over_all(fabric, sums).tolist()), predicted


@torch.no_grad()
def predictions(model: nn.Module, batches: Iterable[Batch]) -> Tensor:
    """The likeliest class of each image ``[n]``, int64, as of `tasks.likeliest`.

    Args:
        model: the network; it is put into evaluation mode.
        batches: images, and labels that are not used.
    """
    model.eval()
    return torch.cat([likeliest(model(x)) for x, _ in batches])


def gathered(fabric: Fabric, mine: Tensor) -> Tensor:
    """Join what processes found for images dealt out in turn, in the images' order."""
    found: Any = fabric.all_gather(mine)
    return found.view(fabric.world_size, -1).T.flatten()


def flatness(
    model: nn.Module,
    images: Images,
    rho: float,
    group: dist.ProcessGroup | None = None,
    task: Task = CLASSIFY,
) -> dict[str, float]:
    """Measure how flat the training loss is, with the labels trained on.

    BatchNorm uses its running statistics, so that the loss is a function of the
    weights alone. A number that cannot be measured, for instance because training has
    diverged, is NaN, and a RuntimeWarning says why; the run keeps its other numbers.
    This loss has no label smoothing and no mixup.

    Args:
        model: the network; it is put into evaluation mode.
        images: this process's part of the training set.
        rho: the radius of the sharpness.
        group: of the processes that share the set.
        task: whose loss it is.

    Returns:
        ``sharpness`` and ``lambda_max``.
    """
    numbers = {"sharpness": math.nan, "lambda_max": math.nan}
    with _tried("sharpness or lambda_max"):
        objective = _objective(model, images, group, task)
        numbers["sharpness"] = diagnostics.sharpness(objective, rho).value
        numbers["lambda_max"] = diagnostics.eigenvalues(objective, 1, tol=0.01).value
    return numbers


def spectrum(
    model: nn.Module,
    images: Images,
    group: dist.ProcessGroup | None = None,
    task: Task = CLASSIFY,
) -> dict[str, float]:
    """Measure the eigenvalues of the paper's Figure 3; arguments as of `flatness`.

    Returns:
        ``lambda_max`` and ``lambda_ratio``, lambda_max / lambda_5.
    """
    numbers = {"lambda_max": math.nan, "lambda_ratio": math.nan}
    with _tried("the spectrum"):
        objective = _objective(model, images, group, task)
        found = diagnostics.eigenvalues(objective, 5, tol=0.01)
        numbers |= {"lambda_max": found.value, "lambda_ratio": found.ratio}
    return numbers


@contextmanager
def _tried(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError) as error:
        warnings.warn(f"{what} is not known: {error}", RuntimeWarning, stacklevel=4)


def _objective(
    model: nn.Module, images: Images, group: dist.ProcessGroup | None, task: Task
) -> diagnostics.Objective:
    data = list(images)
    return diagnostics.Objective(model.eval(), task.criterion, data, group=group)


class Means:
    """Means over examples of the numbers that groups measure in training steps.

    Args:
        device: where the sums are.

    Attributes:
        sums: for each of `NAMES`, the sum and the number of examples in it.
    """

    #: Mean loss at ``w``; rise of the loss, and of the error in per cent, from ``w``
    #: to ``w + eps``.
    NAMES = ("train_loss", "sharpness", "error_sharpness")

    def __init__(self, device: torch.device) -> None:
        self.sums = _zeros(device, 2 * len(self.NAMES))

    def add(self, n: int, values: Iterable[Tensor | None]) -> None:
        """Add the numbers of a group of ``n`` examples, as of `NAMES`; skip None."""
        for place, value in enumerate(values):
            if value is not None:
                self.sums[2 * place] += n * value
                self.sums[2 * place + 1] += n

    def read(self, fabric: Fabric) -> dict[str, float]:
        """Return the means since the last call, over all processes; leave out empty."""
        totals = _over_all(fabric, self.sums).view(-1, 2).tolist()
        self.sums.zero_()
        pairs = zip(self.NAMES, totals, strict=True)
        return {name: total / n for name, (total, n) in pairs if n}


def _zeros(device: torch.device, n: int) -> Tensor:
    # Apple's devices have no float64.
    exact = torch.float32 if device.type == "mps" else torch.float64
    return torch.zeros(n, dtype=exact, device=device)


def _over_all(fabric: Fabric, sums: Tensor) -> Tensor:
    total: Any = fabric.all_reduce(sums.clone(), reduce_op="sum")
    return total

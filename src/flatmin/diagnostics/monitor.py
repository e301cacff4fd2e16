"""Measures flatness while a model trains, every n steps."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from flatmin.core import _tensors as ts
from flatmin.core._checks import integer, radius
from flatmin.diagnostics._ball import ball_of, climb, step_of
from flatmin.diagnostics._guards import together
from flatmin.diagnostics._objective import Objective
from flatmin.diagnostics._still import evaluating
from flatmin.diagnostics.hessian import eigenvalues
from flatmin.diagnostics.sharpness import finite

#: What a record takes, in gradients of the objective: its points, and a product.
_GRADIENTS, _PRODUCT = 2.0, 4.5

#: The numbers that two gradients give.
_POINTS = ("loss", "loss_eps", "sharpness", "gradient_norm", "cosine")


def _length(norms: Tensor) -> Tensor:
    return norms.square().sum().sqrt()


#: What a step of SAM measures, by its name in a record: its name in the step, and how
#: several numbers (losses of examples, norms of parts of the gradient) become one.
_OF_A_BATCH: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "batch_loss": ("loss", torch.mean),
    "batch_sharpness": ("sharpness", torch.mean),
    "batch_gradient_norm": ("grad_norm", _length),
    "batch_cosine": ("cosine", torch.mean),
}


class Monitor:
    r"""Measures the surroundings of the weights every n steps, and keeps a record.

    A record has, at the weights and over the objective's data: ``loss`` L(w),
    ``loss_eps`` L(w + eps), ``sharpness`` their difference, ``gradient_norm`` ||g||,
    ``cosine`` cos(g, g_eps), and ``lambda_max`` if wanted; ``seconds`` is the time that
    this took. If the optimizer is given, a record also has the ``statistics`` that
    `flatmin.SAM` measured on its own batch in the last step, at no cost: as
    ``batch_loss`` and so on, the mean over the objective's group. Where each group of
    parameters climbs by a norm of its own (`flatmin.layer_sam`), there are several, and
    ``batch_gradient_norm`` is the root of the sum of their squares: again ``||g||_2``
    if each is the 2-norm.

    The objective is built with the model in evaluation mode, on a fixed part of the
    training set. For each record the model is put into evaluation mode and back; its
    weights, gradients, buffers, and the random streams are left alone. A number that
    cannot be measured (a loss that is not finite, no convergence) is null in the
    record, and ``problem`` says why; training goes on.

    A record costs two gradients of the objective and, for ``lambda_max``, about five to
    ten Hessian products of four to five gradients each: `cost`.

    Args:
        objective: on which to measure.
        every: steps from one record to the next; the first is of step 0.
        rho: the radius of the sharpness.
        lambda_max: whether to measure it.
        jsonl: a file to append the records to, one line of JSON each. Of a group, the
            first process alone writes; the others may be given the same file.
        tensorboard: a folder for TensorBoard's event files (needs tensorboard), written
            like ``jsonl``.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.
        ImportError: tensorboard is not installed.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Monitor, Objective
        >>> model = torch.nn.Linear(4, 2)
        >>> data = [(torch.randn(8, 4), torch.randint(2, (8,)))]
        >>> objective = Objective(model, torch.nn.functional.cross_entropy, data)
        >>> monitor = Monitor(objective, every=100)
        >>> for step in range(200):
        ...     _ = monitor(step)  # after optimizer.step()
        >>> [record["step"] for record in monitor.records]
        [0, 100]
    """

    def __init__(
        self,
        objective: Objective,
        *,
        every: int = 100,
        rho: float = 0.05,
        lambda_max: bool = True,
        jsonl: str | Path | None = None,
        tensorboard: str | Path | None = None,
    ) -> None:
        self.objective = objective
        self.every = integer("every", every, 1)
        self.rho = radius(rho)
        self.lambda_max = lambda_max
        self.records: list[dict[str, Any]] = []
        group = objective.group
        if group is not None and dist.get_rank(group) != 0:
            jsonl = tensorboard = None
        self._jsonl = None if jsonl is None else Path(jsonl)
        self._board = None if tensorboard is None else _board(tensorboard)

    @property
    def cost(self) -> float:
        """About how many gradients of the objective a record takes."""
        return _GRADIENTS + (7 * _PRODUCT if self.lambda_max else 0)

    def __call__(self, step: int, optimizer: Any = None) -> dict[str, Any] | None:
        """A record if this step is due, else None.

        In a group of processes all of them have to call it, with the same step; all
        have the same records, but for ``seconds``.

        Args:
            step: how many steps have been made.
            optimizer: a `flatmin.SAM`, whose statistics are recorded as well.
        """
        if step % self.every:
            return None
        began = time.perf_counter()
        record: dict[str, Any] = {"step": step}
        self._try(record, _OF_A_BATCH, lambda: self._statistics(optimizer))
        with evaluating(self.objective.model):
            self._try(record, _POINTS, self._points)
            if self.lambda_max:
                self._try(record, ("lambda_max",), self._lambda_max)
        record["seconds"] = round(time.perf_counter() - began, 4)
        self.records.append(record)
        self._write(record)
        return record

    def close(self) -> None:
        """Finish TensorBoard's file, if there is one."""
        if self._board is not None:
            self._board.close()

    def _try(
        self,
        record: dict[str, Any],
        names: Iterable[str],
        measure: Callable[[], dict[str, Any]],
    ) -> None:
        """Add numbers to the record, None for all of them if one cannot be measured."""
        try:
            record |= {name: float(value) for name, value in measure().items()}
        except (ValueError, TypeError, RuntimeError) as error:
            said = [record["problem"]] if "problem" in record else []
            record["problem"] = "; ".join([*said, str(error)])
            record |= dict.fromkeys(names)

    def _points(self) -> dict[str, Any]:
        """`_POINTS`, from two gradients."""
        loss, g = self.objective.gradient()
        within = ball_of(2.0, None)
        eps = climb(within, step_of(self.objective, self.rho), g, self.rho)
        with self.objective.at(eps):
            top, g_eps = self.objective.gradient()
        finite(top, self.rho)
        numbers = loss, top, top - loss, ts.norm(g), ts.cosine(g, g_eps)
        return dict(zip(_POINTS, numbers, strict=True))

    def _lambda_max(self) -> dict[str, Any]:
        return {"lambda_max": eigenvalues(self.objective, 1, tol=0.03).value}

    def _statistics(self, optimizer: Any) -> dict[str, Any]:
        """What a step of SAM measured, under names of its batch."""
        with together(self.objective.group):
            found = getattr(optimizer, "statistics", None)
            values = [
                _number(getattr(found, name, None), joined)
                for name, joined in _OF_A_BATCH.values()
            ]
        # A process may lack a number that another one has.
        there = [value is not None for value in values]
        sums = torch.tensor(
            [[0.0 if value is None else value for value in values], there],
            dtype=torch.float64,
            device=self.objective.device,
        )
        totals, counts = self.objective.sum(sums)
        return {
            name: total / count
            for name, total, count in zip(_OF_A_BATCH, totals, counts, strict=True)
            if count
        }

    def _write(self, record: dict[str, Any]) -> None:
        if self._jsonl is not None:
            plain = {name: _plain(value) for name, value in record.items()}
            self._jsonl.parent.mkdir(parents=True, exist_ok=True)
            with self._jsonl.open("a") as file:
                file.write(json.dumps(plain, allow_nan=False) + "\n")
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"flatmin/{name}", value, record["step"])
            self._board.flush()


def _number(value: Any, joined: Callable[[Tensor], Tensor]) -> float | None:
    """Return a statistic as one number; None if it was not measured."""
    if value is None:
        return None
    return float(joined(torch.as_tensor(value, dtype=torch.float64)))


def _plain(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _board(folder: str | Path) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise ImportError(
            "tensorboard= needs TensorBoard: pip install tensorboard."
        ) from None
    return SummaryWriter(str(folder))

"""``L(w)``: what every diagnostic measures the surroundings of."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map  # pyright: ignore

from flatmin.core import _tensors as ts
from flatmin.diagnostics import _guards as guards
from flatmin.diagnostics._still import still

#: From model and batch to outputs and targets, examples along the first axis of both.
Forward: TypeAlias = Callable[[nn.Module, Any], tuple[Tensor, Tensor]]

#: From outputs and targets to the mean loss.
Criterion: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def pair(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """``model(x), y`` of a batch ``(x, y)``."""
    x, y = batch
    return model(x), y


class Objective:
    r"""The mean loss of a model over data, as a function of the weights.

    .. math::
        L(w) = \frac{1}{N} \sum_{i=1}^N \ell(f_w(x_i), y_i)

    Every diagnostic takes one. It does not change the model: parameters are moved in
    place and restored bit for bit, gradients, modes, buffers and random streams are
    left alone. Sums over batches are in float64, each batch weighted by its size.

    What makes a number meaningless is refused when the object is built, which reads
    the data twice. What one process of a group refuses, or raises later, raises an
    error in all of them.

    Args:
        model: in evaluation mode as far as it has dropout or running statistics. Of a
            model in DistributedDataParallel the module inside is used.
        criterion: from outputs and targets to the *mean* loss over the examples, for
            instance ``torch.nn.functional.cross_entropy``.
        data: batches, the same in every pass, each ``(x, y)`` unless ``forward`` says
            otherwise. Tensors in it are moved to the model's device.
        forward: from model and batch to outputs and targets, whose first axis is that
            of the examples. For a batch that is a dictionary:
            ``lambda model, batch: (model(batch["x"]), batch["y"])``.
        group: processes that each hold a part of the data and the same weights; every
            number is then that of all parts together, alike on all of them, and every
            diagnostic has to be called by all of them. None is this process alone.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: layers are in training mode, the loss is no finite number or not
            the same when it is read again, or parameters are sharded or narrower than
            float32.
        RuntimeError: another process of the group has refused its part.

    Example:
        >>> import torch
        >>> from torch.nn.functional import cross_entropy
        >>> from flatmin.diagnostics import Objective
        >>> model = torch.nn.Linear(4, 2)
        >>> data = [(torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(3)]
        >>> objective = Objective(model, cross_entropy, data)
        >>> objective.n
        24
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        data: Iterable[Any],
        *,
        forward: Forward = pair,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.criterion = criterion
        self.data = data
        self.forward = forward
        self.group = group
        with guards.together(group):
            self.model = guards.check_model(model)
            guards.check_modes(self.model)
            guards.check_data(data)
            self.w = [p for p in self.model.parameters() if p.requires_grad]
            with still(self.model):
                losses, self.sizes = self._each_batch()
                guards.check_same(losses, self._each_batch()[0])
        self.n = int(self.sum(torch.tensor(sum(self.sizes), device=self.device)))
        if self.n == 0:
            raise ValueError("the data has no batch with an example in it.")

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.w[0].device

    def batches(self) -> Iterator[Any]:
        """This process's batches, on the model's device."""
        for batch in self.data:
            yield tree_map(self._here, batch)

    def loss_of(self, batch: Any) -> tuple[Tensor, int]:
        """The mean loss of a batch, and how many examples it has."""
        outputs, targets = self.forward(self.model, batch)
        loss = self.criterion(outputs, targets)
        if loss.dim() != 0:
            raise ValueError(
                "criterion must return the mean loss, a tensor without axes, got shape "
                f"{tuple(loss.shape)}. Use reduction='mean'."
            )
        return loss, len(targets)

    def gradient_of(self, batch: Any) -> tuple[Tensor, int, list[Tensor]]:
        """`loss_of` a batch and its gradient, zeros where it does not depend on w."""
        with torch.enable_grad():
            loss, size = self.loss_of(batch)
            g = torch.autograd.grad(loss, self.w, materialize_grads=True)
        return loss.detach(), size, list(g)

    def loss(self) -> Tensor:
        """``L`` at where the weights are: float64, 0-dim."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        with self.reading(), torch.no_grad():
            for batch in self.batches():
                loss, size = self.loss_of(batch)
                total += size * loss.double()
        return self.sum(total) / self.n

    def gradient(self) -> tuple[Tensor, list[Tensor]]:
        """``L`` and its gradient, one tensor per entry of ``w``, in their dtypes.

        A parameter that the loss does not depend on has a gradient of zeros.
        """
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        sums = [torch.zeros_like(p) for p in self.w]
        with self.reading():
            for batch in self.batches():
                loss, size, g = self.gradient_of(batch)
                total += size * loss.double()
                ts.add_times_(sums, size / self.n, g)
        return self.sum(total) / self.n, [self.sum(g) for g in sums]

    @contextmanager
    def reading(self) -> Generator[None]:
        """Around whatever reads the data: leaves no trace, and fails in all processes.

        Nothing inside may wait for another process.

        Raises:
            ValueError: layers are in training mode.
            RuntimeError: another process of the group has raised an error inside.
        """
        with guards.together(self.group), still(self.model):
            guards.check_modes(self.model)
            yield

    @contextmanager
    def at(self, eps: Sequence[Tensor | None]) -> Generator[None]:
        """The weights are ``w + eps`` inside, and ``w`` again afterwards.

        Args:
            eps: one entry per parameter of ``w``; None where nothing moves.
        """
        moved = [(p, e) for p, e in zip(self.w, eps, strict=True) if e is not None]
        w, x = [p.detach() for p, _ in moved], [e for _, e in moved]
        copies = [p.clone() for p in w]
        try:
            if w:
                ts.add_(w, x)
            yield
        finally:
            if w:
                ts.copy_(w, copies)

    def _each_batch(self) -> tuple[Tensor, Sequence[int]]:
        """The loss of every batch: float64, 1-dim, on the CPU; and their sizes."""
        losses: list[Tensor] = []
        sizes: list[int] = []
        with torch.no_grad():
            for batch in self.batches():
                loss, size = self.loss_of(batch)
                losses.append(loss.double().cpu())
                sizes.append(size)
        values = torch.stack(losses) if losses else torch.zeros(0, dtype=torch.float64)
        if not values.isfinite().all():
            at = int((~values.isfinite()).nonzero()[0])
            raise ValueError(
                f"the loss of batch {at} is {values[at]:g}: there is nothing to "
                "measure around weights whose loss is not finite."
            )
        return values, sizes

    def sum(self, x: Tensor) -> Tensor:
        """``x`` added up over the processes, in place; ``x`` itself if there is one."""
        if self.group is not None:
            dist.all_reduce(x, group=self.group)
        return x

    def _here(self, x: Any) -> Any:
        return x.to(self.device, non_blocking=True) if isinstance(x, Tensor) else x

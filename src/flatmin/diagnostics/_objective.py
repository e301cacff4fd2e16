"""``L(w)``: the function whose surroundings every diagnostic measures."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flatmin.core import _tensors as ts
from flatmin.diagnostics import _guards as guards
from flatmin.diagnostics import _trees as trees
from flatmin.diagnostics._additive import Additive
from flatmin.diagnostics._criterion import BatchLoss, Criterion, measuring
from flatmin.diagnostics._still import still, versions, weights_kept

#: From model and batch to outputs and targets, examples along the first axis of both.
Forward: TypeAlias = Callable[[nn.Module, Any], tuple[Any, Any]]


def pair(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """``model(x), y`` of a batch ``(x, y)``.

    Raises:
        TypeError: the batch is no pair.
    """
    kind = type(batch).__name__
    two = cast("Sequence[Any]", batch) if isinstance(batch, tuple | list) else ()
    if len(two) != 2:
        raise TypeError(
            f"a batch must be a pair (x, y), got {kind}. Say what to "
            'do with it: forward=lambda model, batch: (model(batch["x"]), batch["y"]).'
        )
    x, y = two
    return model(x), y


class Objective:
    r"""The mean loss of a model over data, as a function of the weights.

    .. math::
        L(w) = \sum_b S_b(w) \Big/ \sum_b c_b, \qquad
        S_b(w) = \sum_{i \in b} \ell(f_w(x_i), y_i)

    ``c_b`` is what the criterion's mean divides by on batch b: the number of examples,
    or of targets that are not ignored, or the sum of their class weights. So L is the
    loss of all data in one batch, however the data is cut, and in however many
    processes. A batch in which everything is ignored has weight 0.

    Every diagnostic takes an objective. No diagnostic changes the model: parameters are
    moved in place and restored bit for bit; gradients, modes, buffers and random
    streams are left alone. Losses are added up in float64, over examples and batches.
    So are the gradients of batches, and their products with the Hessian; within a batch
    these are in the dtype of the weights.

    A model or data that would make a number meaningless is refused when the object is
    built, which reads the data twice. If one process of a group refuses its part, or
    raises an error later, all of them raise one.

    Args:
        model: in evaluation mode as far as it has dropout or running statistics. Of a
            model in DistributedDataParallel the module inside is used.
        criterion: a loss of torch's, as a module, a function or a `functools.partial`
            of one: its weights, ``ignore_index`` and several targets per example are
            understood, and its mean is taken as ``reduction="mean"`` does. Or any
            callable that returns, from outputs and targets, one loss per example, whose
            mean is taken; or a pair, the sum of the losses and the number that it is
            divided by; or the mean over the examples. Whether the losses of parts of a
            batch add up to its own is checked on the data.
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
        ValueError: layers are in training mode, the loss is no finite number, not
            the same when it is read again, a sum, or no mean over the examples;
            every target is ignored; a pass changes weights; or parameters are
            sharded, without values yet, or trainable and narrower than float32.
        RuntimeError: the weights are at ``w + eps`` in a loop of an optimizer, or
            another process of the group has refused its part.

    Example:
        >>> import torch
        >>> from torch.nn.functional import cross_entropy
        >>> from flatmin.diagnostics import Objective
        >>> model = torch.nn.Linear(4, 2)
        >>> data = [(torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(3)]
        >>> objective = Objective(model, cross_entropy, data)
        >>> objective.n
        24

    Attributes:
        n: how many examples there are in all processes.
        divisor: what the sum of all losses is divided by.
        sizes: how many examples each batch of this process has.
        w: the parameters that move.
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
        self._criterion = criterion
        self.measure = measuring(criterion)
        self.data = data
        self.forward = forward
        self.group = group
        with guards.together(group):
            self.model = guards.check_model(model)
            guards.check_modes(self.model)
            guards.check_data(data, group)
            guards.check_home(self.model)
            self.w = [p for p in self.model.parameters() if p.requires_grad]
            with still(self.model), weights_kept(self.model), torch.no_grad():
                first = [loss for _, _, loss in self._losses()]
                guards.check_finite(first)
                self._check_again(first)
        self.sizes = [loss.examples for loss in first]
        self._own = sum((loss.divisor for loss in first), self._zero())
        self.n = int(self.sum(torch.tensor(sum(self.sizes), device=self.device)))
        self.divisor = float(self.sum(self._own.clone()))
        guards.check_divisor(self.n, self.divisor)

    @property
    def criterion(self) -> Criterion:
        """The criterion that was given."""
        return self._criterion

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.w[0].device

    def batches(self) -> Iterator[Any]:
        """This process's batches, on the model's device."""
        for batch in self.data:
            yield trees.mapped(self._here, batch)

    def loss_of(self, batch: Any) -> BatchLoss:
        """The sum of the losses of a batch, and what their mean divides by."""
        return self.measure(*self._pass(batch))

    def gradient_of(self, batch: Any) -> tuple[BatchLoss, list[Tensor]]:
        """`loss_of` a batch and the gradient of the sum, in the dtypes of ``w``.

        Raises:
            ValueError: the loss was cut off from the weights.
        """
        with torch.enable_grad():
            loss = self.loss_of(batch)
            guards.check_graph(loss.total)
            g = torch.autograd.grad(loss.total, self.w, materialize_grads=True)
        return loss._replace(total=loss.total.detach()), list(g)

    def loss(self) -> Tensor:
        """``L`` at where the weights are: float64, 0-dim."""
        total, count = self._zero(), self._zero()
        with self.reading(), torch.no_grad():
            for batch in self.batches():
                loss = self.loss_of(batch)
                total += loss.total
                count += loss.divisor
            guards.check_count(count, self._own)
        return self.sum(total) / self.divisor

    def gradient(self) -> tuple[Tensor, list[Tensor]]:
        """``L`` and its gradient, one tensor per entry of ``w``, in their dtypes.

        A parameter that the loss does not depend on has a gradient of zeros.
        """
        total, count = self._zero(), self._zero()
        sums = [torch.zeros_like(p, dtype=_wide(p.dtype)) for p in self.w]
        with self.reading():
            for batch in self.batches():
                loss, g = self.gradient_of(batch)
                total += loss.total
                count += loss.divisor
                ts.add_times_(sums, 1 / self.divisor, g)
            guards.check_count(count, self._own)
        pairs = zip(sums, self.w, strict=True)
        mean = [self.sum(g).to(p.dtype) for g, p in pairs]
        return self.sum(total) / self.divisor, mean

    @contextmanager
    def reading(self) -> Generator[None]:
        """Surround a reading of the data: leave no trace, and fail in all processes.

        Nothing inside may wait for another process.

        Raises:
            ValueError: layers are in training mode, or other parameters are trainable.
            RuntimeError: the weights are at ``w + eps`` in a loop of an optimizer, or
                another process of the group has raised an error inside.
        """
        with guards.together(self.group), still(self.model):
            guards.check_modes(self.model)
            guards.check_weights(self.model, self.w)
            guards.check_home(self.model)
            yield

    @contextmanager
    def at(self, eps: Sequence[Tensor | None]) -> Generator[None]:
        """The weights are ``w + eps`` inside, and ``w`` again afterwards.

        An autocast region around it forgets its casts of the weights.

        Args:
            eps: one entry per parameter of ``w``; None where nothing moves.
        """
        moved = [(p, e) for p, e in zip(self.w, eps, strict=True) if e is not None]
        w, x = [p.detach() for p, _ in moved], [e for _, e in moved]
        copies = [p.clone() for p in w]
        try:
            if w:
                ts.add_(w, x)
            torch.clear_autocast_cache()
            yield
        finally:
            if w:
                ts.copy_(w, copies)
            torch.clear_autocast_cache()

    def _losses(self) -> Iterator[tuple[Any, Any, BatchLoss]]:
        """Outputs, targets and losses of every batch."""
        for batch in self.batches():
            outputs, targets = self._pass(batch)
            yield outputs, targets, self.measure(outputs, targets)

    def _pass(self, batch: Any) -> tuple[Any, Any]:
        """Outputs and targets of a batch.

        Raises:
            ValueError: the pass has changed weights.
        """
        before = versions(self.w)
        pair = self.forward(self.model, batch)
        if versions(self.w) != before:
            guards.refuse_change()
        return pair

    def _check_again(self, first: Sequence[BatchLoss]) -> None:
        """Refuse a loss that differs from a first pass, or is no mean over examples."""
        additive, second = Additive(self.measure), list[BatchLoss]()
        for outputs, targets, loss in self._losses():
            second.append(loss)
            additive.see(outputs, targets, loss)
        guards.check_same(guards.means(first), guards.means(second))

    def _zero(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=self.device)

    def sum(self, x: Tensor) -> Tensor:
        """``x`` added up over the processes, in place; ``x`` itself if there is one."""
        if self.group is not None:
            dist.all_reduce(x, group=self.group)
        return x

    def _here(self, x: Any) -> Any:
        return x.to(self.device, non_blocking=True) if isinstance(x, Tensor) else x


def _wide(dtype: torch.dtype) -> torch.dtype:
    """float64, or complex128 for complex numbers."""
    return torch.promote_types(dtype, torch.float64)

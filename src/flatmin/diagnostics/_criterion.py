"""The sum of the losses of a batch, and the number that their mean divides by.

The mean over all data is the sum of the sums, divided by the sum of these numbers. It
is not the mean of the batches' means: with class weights, ignored targets or sequences
of unequal length, two batches of equally many examples divide by different numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.diagnostics import _trees as trees
from flatmin.diagnostics._hooks import any_hooks

#: From outputs and targets to the mean loss, to one loss per example, or to the sum of
#: the losses and the number that it is divided by.
Criterion: TypeAlias = Callable[[Any, Any], Tensor | tuple[Tensor, Tensor | float]]

#: Losses that divide by a sum over the targets.
_BY_TARGET: dict[Any, Any] = {
    nn.CrossEntropyLoss: F.cross_entropy,
    nn.NLLLoss: F.nll_loss,
}

#: Losses whose mean is that of all numbers that reduction="none" gives.
_BY_NUMBER: dict[Any, Any] = {
    nn.L1Loss: F.l1_loss,
    nn.MSELoss: F.mse_loss,
    nn.SmoothL1Loss: F.smooth_l1_loss,
    nn.HuberLoss: F.huber_loss,
    nn.BCELoss: F.binary_cross_entropy,
    nn.BCEWithLogitsLoss: F.binary_cross_entropy_with_logits,
    nn.KLDivLoss: F.kl_div,
    nn.PoissonNLLLoss: F.poisson_nll_loss,
    nn.SoftMarginLoss: F.soft_margin_loss,
    nn.HingeEmbeddingLoss: F.hinge_embedding_loss,
    nn.MultiMarginLoss: F.multi_margin_loss,
    nn.MultiLabelMarginLoss: F.multilabel_margin_loss,
    nn.MultiLabelSoftMarginLoss: F.multilabel_soft_margin_loss,
}

_MODULES = {**_BY_TARGET, **_BY_NUMBER}

#: With a weight these divide by the sum of the weights, entry by entry of the batch.
_WEIGHT_OF_ENTRIES: list[Any] = [F.l1_loss, F.mse_loss, F.huber_loss]


class BatchLoss(NamedTuple):
    """The losses of a batch.

    Attributes:
        total: their sum: float64, 0-dim.
        divisor: what their mean divides by: float64, 0-dim.
        examples: how many examples the batch has.
        bare: whether the criterion gave only a mean; the divisor is a guess then.
    """

    total: Tensor
    divisor: Tensor
    examples: int
    bare: bool = False

    @property
    def mean(self) -> Tensor:
        """``total / divisor``; 0 where nothing counts."""
        return self.total / torch.where(self.divisor == 0, 1, self.divisor)


#: From outputs and targets to the losses of a batch.
Measure: TypeAlias = Callable[[Any, Any], BatchLoss]


def measuring(criterion: Criterion) -> Measure:
    """Return the function that computes the losses of a batch with a criterion.

    Raises:
        TypeError: the criterion is not callable.
        ValueError: it is a loss of torch's that adds up, instead of a mean.
    """
    if not callable(criterion):
        kind = type(criterion).__name__
        raise TypeError(
            f"criterion must be callable with (outputs, targets), got {kind}."
        )
    known = _known(criterion)
    return partial(_said, criterion) if known is None else known


def examples_of(targets: object) -> int:
    """Return how many examples the targets belong to.

    Raises:
        TypeError: no tensor in them has an axis, or their first axes differ in length.
    """
    sizes = {len(x) for x in trees.tensors(targets) if x.dim() > 0}
    if len(sizes) != 1:
        raise TypeError(
            "forward must return outputs and targets whose first axis is that of the "
            f"examples, got targets of type {type(targets).__name__} with first axes "
            f"{sorted(sizes) or 'missing'}. Return a tensor with a row per example."
        )
    return sizes.pop()


@dataclass(frozen=True, slots=True)
class _Known:
    """Computes a loss of torch's without its reduction.

    Its options are read whenever it is called: a criterion's may change.

    Attributes:
        function: in torch.nn.functional.
        criterion: a module, or a partial of the function.
    """

    function: Any
    criterion: Any

    def __call__(self, outputs: Any, targets: Any) -> BatchLoss:
        """The losses of a batch."""
        if not isinstance(outputs, Tensor):
            raise TypeError(
                f"{self.function.__name__} needs outputs that are one tensor, got "
                f"{type(outputs).__name__}. Give forward=, for instance "
                'lambda model, batch: (model(batch[0])["logits"], batch[1]).'
            )
        examples = examples_of(targets)
        losses = _checked(_unreduced(self.criterion)(outputs, targets))
        total = losses.sum(dtype=torch.float64)
        divisor = self._divisor(targets, losses, examples)
        return BatchLoss(total, _number(divisor, total), examples)

    def _divisor(self, targets: Tensor, losses: Tensor, examples: int) -> Tensor | int:
        options = _options(self.criterion)
        if options.get("reduction") == "batchmean":
            return examples
        whole = not targets.is_floating_point()
        if whole and _among(self.function, _BY_TARGET.values()):
            return _of_targets(targets, options)
        return losses.numel()


def is_of_torch(measure: Measure) -> bool:
    """Whether a criterion is a loss of torch's, without functions of others in it."""
    known = isinstance(measure, _Known)
    module = known and isinstance(measure.criterion, nn.Module)
    return known and not (module and any_hooks(measure.criterion))


def _of_targets(targets: Tensor, options: Mapping[str, Any]) -> Tensor:
    """How many targets are not ignored; with class weights, the sum of theirs."""
    kept = targets != options.get("ignore_index", -100)
    weight = options.get("weight")
    if weight is None:
        return kept.sum()
    # As an index, uint8 would be a mask.
    weights = weight[torch.where(kept, targets, 0).long()]
    return (weights.double() * kept).sum()


def _options(criterion: Any) -> Mapping[str, Any]:
    """The options of a module, or of a partial."""
    if isinstance(criterion, partial):
        return criterion.keywords
    names = ("reduction", "weight", "ignore_index")
    return {n: getattr(criterion, n) for n in names if hasattr(criterion, n)}


def _unreduced(criterion: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The same loss, one number per entry."""
    if isinstance(criterion, partial):
        return partial(cast("Callable[..., Tensor]", criterion), reduction="none")
    # Not a deep copy: it must share the criterion's weights, wherever they move.
    unreduced = copy.copy(criterion)
    unreduced.reduction = "none"
    return unreduced


def _known(criterion: Any) -> _Known | None:
    """Return a criterion that is a loss of torch's whose mean we know, else None."""
    if type(criterion) in _MODULES:
        function = _MODULES[type(criterion)]
        _check_mean(function, _options(criterion))
        return _Known(function, criterion)
    bound: Any = criterion
    if not isinstance(criterion, partial):
        bound = partial(criterion)
    function, options = bound.func, bound.keywords
    old = {"size_average", "reduce"} & options.keys()
    of_entries = "weight" in options and _among(function, _WEIGHT_OF_ENTRIES)
    if old or of_entries or not _among(function, _MODULES.values()):
        return None
    _check_mean(function, options)
    return _Known(function, bound)


def _among(function: Any, known: Iterable[Any]) -> bool:
    """Whether it is one of them; by identity, as not all callables can be compared."""
    return any(function is one for one in known)


def _check_mean(function: Any, options: Mapping[str, Any]) -> None:
    """Refuse a loss that adds up over the examples.

    Raises:
        ValueError: it does.
    """
    if options.get("reduction") == "sum":
        raise ValueError(
            f"{function.__name__} with reduction='sum' adds up over the examples, and "
            "an Objective is a mean. Use reduction='mean', and multiply what you "
            "measure by the number of examples if you need the sum."
        )


def _said(criterion: Criterion, outputs: Any, targets: Any) -> BatchLoss:
    """Return the losses of a batch from a criterion that is none of torch's."""
    examples = examples_of(targets)
    said = criterion(outputs, targets)
    if isinstance(said, tuple):
        return _of_pair(said, examples)
    losses = _checked(said)
    total = losses.sum(dtype=torch.float64)
    if losses.dim() == 0:
        return BatchLoss(
            total * examples, _number(examples, total), examples, bare=True
        )
    if len(losses) != examples:
        raise ValueError(
            "criterion must return the mean loss (no axes) or one loss per example "
            f"(first axis {examples}), got shape {tuple(losses.shape)}."
        )
    return BatchLoss(total, _number(losses.numel(), total), examples)


def _of_pair(said: tuple[Any, ...], examples: int) -> BatchLoss:
    if len(said) != 2:
        raise ValueError(
            f"criterion returned {len(said)} things. Return the mean loss, one loss "
            "per example, or a pair (sum of the losses, number it is divided by)."
        )
    total = _checked(said[0])
    if total.dim() != 0:
        raise ValueError(
            "the first of the criterion's pair must be the sum of the losses, a tensor "
            f"without axes, got shape {tuple(total.shape)}. Call .sum()."
        )
    return BatchLoss(total.double(), _number(said[1], total), examples)


def _number(divisor: Tensor | float, total: Tensor) -> Tensor:
    """Return a mean's divisor as a constant: float64, 0-dim, on the loss's device."""
    if isinstance(divisor, Tensor):
        return divisor.detach().to(total.device, torch.float64)
    return torch.tensor(divisor, dtype=torch.float64, device=total.device)


def _checked(losses: object) -> Tensor:
    """Refuse losses that cannot be added up; return the others.

    Raises:
        TypeError: they are no tensor.
        ValueError: they are complex, whole, or narrower than float32.
    """
    if not isinstance(losses, Tensor):
        raise TypeError(
            "criterion must return a tensor that gradients flow through, got "
            f"{type(losses).__name__}. Leave out .item() and float()."
        )
    if not losses.is_floating_point() or losses.dtype.itemsize < 4:
        raise ValueError(
            f"the loss is {losses.dtype}, and what is measured are small differences "
            "of losses. Let forward return float32: model(x).float(), y."
        )
    return losses

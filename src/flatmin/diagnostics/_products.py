"""Products of a curvature matrix with a vector, over all of the data."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from flatmin.core import _tensors as ts
from flatmin.core._autograd import has_weight_norm, weight_norm_by_hand
from flatmin.diagnostics import _guards as guards
from flatmin.diagnostics import _trees as trees
from flatmin.diagnostics._functional import names, reads
from flatmin.diagnostics._objective import Objective

#: The Hessian of the loss, or its generalised Gauss-Newton part, ``J' H_out J``.
Matrix: TypeAlias = Literal["hessian", "ggn"]

#: torch's warning when curvlinops is imported, or forward mode is first used.
_NOISE = "`torch.jit.script` is deprecated"

#: The curvature of the sum of a batch's losses, times a vector.
_BatchProduct: TypeAlias = Callable[[Any, Sequence[Tensor]], Sequence[Tensor]]


class Curvature:
    """A curvature matrix of an objective, as an operator on flat vectors.

    Raises:
        ValueError: there is no matrix of that name, or weights are complex.
    """

    def __init__(self, objective: Objective, matrix: Matrix) -> None:
        if matrix not in ("hessian", "ggn"):
            raise ValueError(f"matrix is 'hessian' or 'ggn', got {matrix!r}.")
        if any(w.is_complex() for w in objective.w):
            raise ValueError("curvature needs real weights, got complex ones.")
        self.objective = objective
        self.like = self.flat([p.detach() for p in objective.w])
        by_hand = has_weight_norm(objective.model)
        self._norms = weight_norm_by_hand if by_hand else nullcontext
        self._of_batch = _hessian(objective) if matrix == "hessian" else _ggn(objective)

    def __call__(self, v: Tensor) -> Tensor:
        """The matrix times ``v``."""
        parts = self.parts(v)
        total = [torch.zeros_like(p, dtype=torch.float64) for p in parts]
        # Of the attention kernels only the plain one has second derivatives.
        with self.objective.reading(), sdpa_kernel(SDPBackend.MATH), self._norms():
            for batch in self.objective.batches():
                product = self._of_batch(batch, parts)
                ts.add_times_(total, 1 / self.objective.divisor, product)
        return _finite(self.objective.sum(self.flat(total)).to(v.dtype))

    def flat(self, parts: Sequence[Tensor]) -> Tensor:
        """One vector, of the widest dtype among the weights."""
        return torch.cat([part.reshape(-1) for part in parts])

    def parts(self, v: Tensor) -> list[Tensor]:
        """A vector as tensors like the weights."""
        w = self.objective.w
        pieces = torch.split(v, [p.numel() for p in w])
        return [x.view(p.shape).to(p.dtype) for x, p in zip(pieces, w, strict=True)]


def _hessian(objective: Objective) -> _BatchProduct:
    """Multiply by two backward passes: half the time of torch.func's forward mode."""

    def product(batch: Any, v: Sequence[Tensor]) -> Sequence[Tensor]:
        with torch.enable_grad():
            loss = objective.loss_of(batch).total
            guards.check_graph(loss)
            g = torch.autograd.grad(
                loss, objective.w, create_graph=True, materialize_grads=True
            )
            pairs = [(a, b) for a, b in zip(g, v, strict=True) if a.requires_grad]
            if not pairs:
                return [torch.zeros_like(p) for p in objective.w]
            slopes, along = [a for a, _ in pairs], [b for _, b in pairs]
            return torch.autograd.grad(
                slopes, objective.w, along, materialize_grads=True
            )

    return product


def _ggn(objective: Objective) -> _BatchProduct:
    """Multiply with curvlinops."""
    outputs = _Outputs(objective)
    known = names(outputs, objective.w)

    def f(*w_and_batch: Any) -> Tensor:
        *w, batch = w_and_batch
        named = dict(zip(known, w, strict=True))
        return functional_call(outputs, named, (batch,))

    def c(prediction: Tensor, targets: object) -> Tensor:
        del targets
        return objective.measure(prediction, outputs.targets).total

    _check_replaceable(objective, f, c)
    multiply = _curvlinops().make_ggn_vector_product(f, c)

    def product(batch: Any, v: Sequence[Tensor]) -> Sequence[Tensor]:
        w = tuple(p.detach() for p in objective.w)
        # The criterion's own parameters may have put it into a graph.
        return [x.detach() for x in multiply(w, batch, None, *v)]

    return product


class _Outputs(nn.Module):
    """The outputs of a batch; its targets are kept for the criterion."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.model = objective.model
        self.targets: Any = None
        self._objective = objective

    def forward(self, batch: Any) -> Tensor:
        outputs, self.targets = self._objective.forward(self.model, batch)
        if not isinstance(outputs, Tensor) or outputs.dim() == 0:
            raise ValueError(
                "the Gauss-Newton matrix needs outputs that are one tensor with an "
                "axis of examples, and a criterion that makes a loss of them. Use "
                "matrix='hessian', or a forward that returns the logits."
            )
        return outputs


def _check_replaceable(
    objective: Objective, f: Callable[..., Tensor], c: Callable[..., Tensor]
) -> None:
    """Refuse a model whose weights `functional_call` cannot replace in some batch.

    Args:
        objective: whose batches.
        f: gives the outputs of weights and a batch.
        c: gives the loss of the outputs of the last batch.

    Raises:
        ValueError: the model reads weights from elsewhere than attributes of modules,
            or the criterion reads weights.
    """
    guards.check_mode()
    w = [p.detach() for p in objective.w]
    with objective.reading():
        for batch in map(trees.detached, objective.batches()):
            with torch.enable_grad():
                outputs = f(*w, batch)
                loss = c(outputs.detach(), None)
            if reads(outputs, objective.w):
                raise ValueError(
                    "the Gauss-Newton matrix needs a model that reads its weights as "
                    "attributes of modules; this one reads some from a list, a partial "
                    "or a closure, where they cannot be replaced. Use "
                    "matrix='hessian', or write self.layer.weight in forward."
                )
            if reads(loss, objective.w):
                raise ValueError(
                    "the Gauss-Newton matrix is that of a loss of the outputs alone; "
                    "this criterion reads weights, too. Use matrix='hessian', or leave "
                    "the penalty out of the criterion."
                )


def _finite(product: Tensor) -> Tensor:
    """Refuse a product that is not finite.

    Raises:
        ValueError: it is infinite or NaN.
    """
    if not product.isfinite().all():
        raise ValueError(
            "the curvature is infinite or NaN: the weights are where the loss is "
            "finite and its second derivatives are not."
        )
    return product


def _curvlinops() -> Any:
    """Load the module of curvlinops that has the product, where it is needed.

    Raises:
        ImportError: curvlinops is not installed.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _NOISE, FutureWarning)
        try:
            ggn = importlib.import_module("curvlinops.ggn")
        except ImportError:
            raise ImportError(
                "the Gauss-Newton matrix needs curvlinops: pip install "
                '"flatmin[diagnostics]".'
            ) from None
        one = torch.ones(())
        jvp(torch.clone, (one,), (one,))
    return ggn

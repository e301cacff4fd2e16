"""What the loop body sees of a pass, and what is known after a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin.core import Batch


class Probe:
    """One pass of a step: the model stands where the method wants its gradient.

    Attributes:
        index: 0 for the first pass of the step.
        perturbed: True at ``w + eps``, False at ``w``.
    """

    def __init__(
        self,
        index: int,
        perturbed: bool,
        batch: Batch,
        along: list[tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.index = index
        self.perturbed = perturbed
        self._batch = batch
        self._loss: Tensor | None = None
        self._along = along
        self.answered = along is None

    @property
    def loss(self) -> Tensor | None:
        """The loss of this pass, detached; None until the loop body sets it."""
        return self._loss

    @loss.setter
    def loss(self, value: Tensor | float) -> None:
        # A copy: the next pass may write its loss into the same tensor.
        self._loss = torch.as_tensor(value).detach().clone()

    def backward(self, loss: Tensor) -> None:
        """``loss.backward()``, or what the method wants in its place.

        Second-order SAM wants the product of the Hessian with a vector. Its loops must
        call this; those of other methods may.

        Args:
            loss: the scalar to differentiate.
        """
        if self._along is not None:
            loss = _slope(loss, self._along)
            self.answered = True
        # Of a linear loss the slope is a constant, and the product zero.
        if self._along is None or loss.requires_grad:
            torch.autograd.backward(loss)

    def take(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The examples this pass needs; the whole batch unless the method says less.

        Args:
            tensors: inputs, targets and so on, examples along the first axis, equally
                many in each.

        Returns:
            One tensor for one argument, else a tuple: ``x, y = probe.take(x, y)``.

        Raises:
            ValueError: nothing was given, or the first axes differ.
        """
        sizes = {len(t) for t in tensors}
        if len(sizes) != 1:
            raise ValueError(
                f"take() needs tensors with one common first axis, got {sorted(sizes)}."
            )
        index = self._batch(sizes.pop())
        taken = tensors if index is None else tuple(t[index] for t in tensors)
        return taken[0] if len(taken) == 1 else taken

    def __repr__(self) -> str:
        place = "w + eps" if self.perturbed else "w"
        return f"Probe({self.index}, at {place})"


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the last step measured; reading a tensor's value may wait for the device.

    Attributes:
        passes: how many gradients the step took.
        loss: ``L(w)``, if the loop set ``probe.loss``.
        perturbed_loss: ``L(w + eps)``, likewise; None if nothing was perturbed.
        grad_norm: dual norm of the ascent gradient (``||g||_2`` for p = 2), float64.
        cosine: ``cos(g, g_eps)``, if the optimizer was built with ``track_cosine``.
    """

    passes: int = 0
    loss: Tensor | None = None
    perturbed_loss: Tensor | None = None
    grad_norm: Tensor | None = None
    cosine: Tensor | None = None

    @property
    def sharpness(self) -> Tensor | None:
        """``L(w + eps) - L(w)``; None if one of the two is unknown."""
        if self.loss is None or self.perturbed_loss is None:
            return None
        return self.perturbed_loss - self.loss


def _slope(loss: Tensor, along: list[tuple[Tensor, Tensor]]) -> Tensor:
    """``<g, v>``, whose gradient is ``H v``."""
    w = [p for p, _ in along]
    g = torch.autograd.grad(loss, w, create_graph=True, materialize_grads=True)
    pairs = zip(g, along, strict=True)
    return torch.stack([(g_i * v).sum() for g_i, (_, v) in pairs]).sum()

"""What the loop body sees of a pass, and what is known after a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin.core import Ask


class Probe:
    """One pass of a step: the model stands where the method wants its gradient.

    Attributes:
        index: 0 for the first pass of the step.
        perturbed: True at ``w + eps``, False at ``w``.
        climbs: True if a perturbation is made of this pass's gradient. Plain SGD's only
            pass, for instance, does not climb.
        losses: the loss of each example, detached, if the method asked for it.
    """

    def __init__(
        self,
        index: int,
        ask: Ask,
        along: list[tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.index = index
        self.perturbed = ask.at is not None
        self.climbs = ask.climbs
        self.losses: Tensor | None = None
        self._ask = ask
        self._loss: Tensor | None = None
        self._along = along
        self._answered = along is None

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

        Second-order SAM wants the product of the Hessian with a vector, and methods
        that choose examples want to see the loss of each. Their loops must call this;
        those of other methods may.

        Args:
            loss: the scalar to differentiate, or one loss for each example
                (``reduction="none"``), whose mean is then differentiated.

        Raises:
            ValueError: it has more than one axis, or none where each example's loss is
                needed.
            RuntimeError: examples are to be chosen and this is called twice in a pass.
        """
        if loss.dim() > 1:
            shape = tuple(loss.shape)
            raise ValueError(f"a loss has one entry per example, got shape {shape}.")
        if self._ask.each:
            self._look_at(loss)
        if loss.dim() == 1:
            loss = loss.mean()
        if self._along is not None:
            loss = _slope(loss, self._along)
            self._answered = True
        # Of a linear loss the slope is a constant, and the product zero.
        if self._ask.backward and (self._along is None or loss.requires_grad):
            torch.autograd.backward(loss)

    def _look_at(self, losses: Tensor) -> None:
        if losses.dim() == 0:
            raise ValueError(
                "this method needs the loss of each example. Call probe.backward() "
                'with losses that were not averaged: reduction="none".'
            )
        if self.losses is not None:
            raise RuntimeError(
                "this method chooses among the examples of one batch. Call "
                "probe.backward() once per pass."
            )
        self.losses = losses.detach().clone()

    def check_answer(self) -> None:
        """Refuse a body that has not given the method what it asked for.

        Raises:
            RuntimeError: it has not.
        """
        if not self._answered:
            raise RuntimeError(
                "this method needs second derivatives. Call probe.backward(loss) in "
                "the probes() loop instead of loss.backward()."
            )
        if self._ask.each and self.losses is None:
            raise RuntimeError(
                "this method needs the loss of each example. Call "
                'probe.backward(losses) in the probes() loop, with reduction="none", '
                "instead of loss.backward()."
            )

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
        index = self._ask.batch(sizes.pop())
        taken = tensors if index is None else tuple(t[index] for t in tensors)
        return taken[0] if len(taken) == 1 else taken

    def __repr__(self) -> str:
        place = "w + eps" if self.perturbed else "w"
        return f"Probe({self.index}, at {place})"


@dataclass(slots=True)
class Progress:
    """How far a SAM is in its step.

    An object of its own, because wrappers of optimizers (Lightning Fabric's) pass on
    what is read from the optimizer, but keep for themselves what is written to it.

    Attributes:
        open: whether a `probes` loop is being run.
        ready: whether one is finished, and no step was made since.
        unscaled: whether the last one was given the scaler.
    """

    open: bool = False
    ready: bool = False
    unscaled: bool = False


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the last step measured; reading a tensor's value may wait for the device.

    Attributes:
        passes: how many times the loop body ran.
        loss: ``L(w)``, if the loop set ``probe.loss``.
        perturbed_loss: ``L(w + eps)``, likewise; None if nothing was perturbed.
        grad_norm: dual norm of the ascent gradient (``||g||_2`` for p = 2), float64.
        eps_norm: ``||eps||_2``, float64, if the optimizer was built with ``track``.
        cosine: ``cos(g, g_eps)``, likewise.
    """

    passes: int = 0
    loss: Tensor | None = None
    perturbed_loss: Tensor | None = None
    grad_norm: Tensor | None = None
    eps_norm: Tensor | None = None
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

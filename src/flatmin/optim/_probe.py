"""What the loop body sees of a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from flatmin.core import Ascent, Ask, Point, all_examples
from flatmin.core._autograd import check_checkpoints

#: A loss, or what computes it.
Loss: TypeAlias = Tensor | Callable[[], Tensor]


class Probe:
    """One pass of a step: the model stands where the method wants its gradient.

    Attributes:
        index: 0 for the first pass of the step.
        perturbed: False at ``w``, True anywhere else.
        ascended: True at the step's perturbation ``w + eps``, which `Statistics`
            reports. Some methods also make passes elsewhere.
        climbs: True if a perturbation is made of this pass's gradient. Plain SGD's only
            pass, for instance, does not climb.
        losses: the loss of each example, detached, if the method asked for it.
    """

    def __init__(
        self,
        index: int,
        at: type[Point | Ascent | None],
        ask: Ask,
        along: list[tuple[Tensor, Tensor]] | None,
    ) -> None:
        self.index = index
        self.perturbed = at in (Point, Ascent)
        self.ascended = at is Ascent
        self.climbs = ask.climbs
        self.losses: Tensor | None = None
        self._ask = ask
        self._takes = ask.batch is not all_examples
        self._loss: Tensor | None = None
        self._along = along
        self._answered = along is None
        self._parts = ask.part is not None

    @property
    def loss(self) -> Tensor | None:
        """The loss of this pass, detached; None until the loop body sets it."""
        return self._loss

    @loss.setter
    def loss(self, value: Tensor | float) -> None:
        # A copy: the next pass may write its loss into the same tensor.
        self._loss = torch.as_tensor(value).detach().clone()

    @property
    def wants_part(self) -> bool:
        """Whether this pass is for a part of each batch, which `take` gives."""
        return self._ask.batch is not all_examples

    def backward(self, loss: Tensor) -> None:
        """Call ``loss.backward()``, or do what the method wants in its place.

        Second-order SAM wants the product of the Hessian with a vector, and methods
        that choose examples want to see the loss of each. Their loops must call this;
        those of other methods may.

        Args:
            loss: the scalar to differentiate, or one loss for each example
                (``reduction="none"``), whose mean is then differentiated.

        Raises:
            ValueError: the loss has more than one axis, or none where each example's
                loss is needed.
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
        # If the loss is linear, the slope is a constant, and the product zero.
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

    def total(self, *, flat: Loss, rest: Loss) -> Tensor:
        """Return the loss that this pass is for: that of one part, or the sum of both.

        Args:
            flat: the part that is climbed, and descended at ``w + eps``; or a function
                that computes it, which is called if it is wanted.
            rest: the part that is descended at ``w``, likewise.

        Returns:
            One of them, or their sum if the pass is for the whole loss. It is for the
            whole loss if the method knows no parts, or if rho is 0.
        """
        self._parts = False
        if self._ask.part == "flat":
            return _computed(flat)
        if self._ask.part == "rest":
            return _computed(rest)
        return _computed(flat) + _computed(rest)

    def check_answer(self) -> None:
        """Refuse a loop body that has not given the method what it asked for.

        Raises:
            RuntimeError: the body has not.
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
        if self._takes:
            raise RuntimeError(
                "this method wants a part of the batch in this pass; on all of it, "
                "another method would run. Write in the probes() loop, before the "
                "model runs: inputs, targets = probe.take(inputs, targets)."
            )
        self._check_parts()

    def _check_parts(self) -> None:
        if self._parts:
            raise RuntimeError(
                f"this pass is for the {self._ask.part} part of the loss; with all of "
                "it, another method would run. Write in the probes() loop: loss = "
                "probe.total(flat=..., rest=...)."
            )

    def take(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the examples this pass needs: the whole batch by default.

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
        self._takes = False
        index = self._ask.batch(sizes.pop())
        taken = tensors if index is None else tuple(t[index] for t in tensors)
        return taken[0] if len(taken) == 1 else taken

    def __repr__(self) -> str:
        away = "w + eps" if self.ascended else "another point"
        place = away if self.perturbed else "w"
        return f"Probe({self.index}, at {place})"


def _computed(loss: Loss) -> Tensor:
    return loss if isinstance(loss, Tensor) else loss()


def _slope(loss: Tensor, along: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the real part of ``<g, v>``; its gradient is ``H v``."""
    check_checkpoints(loss)
    w = [p for p, _ in along]
    g = torch.autograd.grad(loss, w, create_graph=True, materialize_grads=True)
    pairs = zip(g, along, strict=True)
    return torch.stack([_inner(g_i, v) for g_i, (_, v) in pairs]).sum()


def _inner(g: Tensor, v: Tensor) -> Tensor:
    return (g * v.conj()).real.sum() if g.is_complex() else (g * v).sum()

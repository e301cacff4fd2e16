"""What is known after a step, and the log of passes that collects it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from flatmin.core import Ascent, Ask, Batch, Gradients, Point, all_examples
from flatmin.core import _tensors as ts
from flatmin.core import vectors as vec
from flatmin.core._shards import Shards


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the last step measured; reading a tensor's value may wait for the device.

    Everything here is about two points: ``w``, and the step's perturbation ``w + eps``.
    What a method measures elsewhere (on the other side of ``w``, or on the way up) does
    not count. If passes at a point saw all examples and also a part of them, the losses
    are those of all.

    Attributes:
        passes: how many times the loop body ran.
        loss: ``L(w)``, if the loop set ``probe.loss``; None if no pass was at ``w``.
        perturbed_loss: ``L(w + eps)``, likewise; None if nothing was perturbed.
        grad_norm: dual norm of the gradient along which the step climbed to
            ``w + eps`` (``||g||_2`` for p = 2), float64; one entry per ball where each
            group or layer has a ball of its own (`flatmin.layer_sam`, `PerGroup`).
        eps_norm: ``||eps||_2``, float64, if the optimizer was built with ``track``.
        cosine: ``cos(g, g_eps)`` of the step's first gradient at ``w`` and its last at
            ``w + eps``, likewise; None if one of the two is missing.
        same_loss: ``L(w)`` of the examples that ``perturbed_loss`` is of, if known.
    """

    passes: int = 0
    loss: Tensor | None = None
    perturbed_loss: Tensor | None = None
    grad_norm: Tensor | None = None
    eps_norm: Tensor | None = None
    cosine: Tensor | None = None
    same_loss: Tensor | None = None

    @property
    def sharpness(self) -> Tensor | None:
        """``L(w + eps) - L(w)`` of the same examples; None if one is unknown."""
        if self.same_loss is None or self.perturbed_loss is None:
            return None
        return self.perturbed_loss - self.same_loss


@dataclass(slots=True)
class _Seen:
    """What the passes at one point found: losses by their examples, and a gradient."""

    losses: list[tuple[Batch, Tensor]] = field(
        default_factory=list[tuple[Batch, Tensor]]
    )
    g: Gradients = field(default_factory=list[Tensor | None])

    def loss(self) -> tuple[Batch, Tensor | None]:
        """Return the loss of all examples, or else the first; with its examples."""
        for batch, loss in self.losses:
            if batch is all_examples:
                return batch, loss
        return self.losses[0] if self.losses else (all_examples, None)

    def loss_of(self, batch: Batch) -> Tensor | None:
        """Return the loss of these examples, if known."""
        return next((loss for other, loss in self.losses if other is batch), None)


class Log:
    """What the passes of one step measure.

    Attributes:
        w: the parameters.
        passes: how many are finished.
        unperturbed: whether the step had nothing to climb; a 0-dim tensor after an
            ascent.
    """

    def __init__(self, w: list[Tensor], *, track: bool) -> None:
        self.w = w
        self.passes = 0
        self.unperturbed: Tensor | int = 0
        self._track = track
        self._at_w, self._above, self._elsewhere = _Seen(), _Seen(), _Seen()
        self._here = self._at_w
        self._grad_norm: Tensor | None = None
        self._eps_norm: Tensor | None = None

    def begin(self, at: Point | Ascent | None) -> None:
        """Note where the next pass will be."""
        self._here = self._at_w if at is None else self._elsewhere
        if isinstance(at, Ascent):
            if at.norm is not self._grad_norm:
                # Of several ascents the last is the step's.
                self._above = _Seen()
            self._here = self._above
            self._grad_norm, self.unperturbed = at.norm, ~at.ok
            if self._track:
                w = [*self.w, *(p for p, _ in at.frozen)]
                self._eps_norm = vec.norm(w, [*at.eps, *(e for _, e in at.frozen)])

    def end(self, ask: Ask, loss: Tensor | None) -> None:
        """Note a finished pass."""
        self.passes += 1
        if loss is not None:
            self._here.losses.append((ask.batch, loss))

    def keep(self, ask: Ask, g: Gradients) -> None:
        """Keep its gradient if tracked: the first at ``w``, the last at ``w + eps``."""
        first = self._here is self._at_w and not self._here.g
        counts = ask.backward and ask.along is None
        if self._track and counts and (first or self._here is self._above):
            self._here.g = g

    def statistics(self) -> Statistics:
        """Return the finished record."""
        batch, perturbed = self._above.loss()
        return Statistics(
            passes=self.passes,
            loss=self._at_w.loss()[1],
            perturbed_loss=perturbed,
            grad_norm=self._grad_norm,
            eps_norm=self._eps_norm,
            cosine=self._cosine(),
            same_loss=self._at_w.loss_of(batch),
        )

    def _cosine(self) -> Tensor | None:
        if not (self._at_w.g and self._above.g):
            return None
        both = [
            (w, a, b)
            for w, a, b in zip(self.w, self._at_w.g, self._above.g, strict=True)
            if a is not None and b is not None and a.numel() > 0
        ]
        if not both:
            return None
        w = [w for w, _, _ in both]
        first, last = [a for _, a, _ in both], [b for _, _, b in both]
        return ts.cosine(first, last, Shards.of(w).norm)

"""What methods see: the gradient of a loss that is to be descended."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from flatmin.core import Gradients, Step
from flatmin.core._shards import any_sharded, is_dtensor, local_as, whole_as
from flatmin.core._tensors import as_gradient


class GradientView:
    """Translates between the gradients that backward leaves and those of a method.

    A method sees this process's part of each gradient. In a group with ``maximize``, it
    is the gradient of the negated objective, which the method descends. With a scaler,
    the loss scale is divided out, in float32 at least; SAM itself does not need that,
    because only the direction counts.
    """

    def __init__(self, step: Step, scaler: GradScaler | None) -> None:
        self._w = step.w
        maximizes = [bool(group.get("maximize")) for group in step.groups]
        self._signs = [-1.0 if maximizes[k] else 1.0 for k in step.group_of]
        self._scale: Tensor | None = None
        if scaler is not None and scaler.is_enabled():
            self._scale = scaler.scale(torch.ones((), device=step.w[0].device))
        self._plain = self._scale is None and not any(maximizes)

    def seen(self, g: Gradients) -> Gradients:
        """Return the method's gradient, from that of the loop body's backward pass."""
        parts = self._parts(g) if any_sharded(g) else g
        if self._plain:
            return parts
        factor = 1.0 if self._scale is None else 1 / self._scale
        return [
            None if g_i is None else _wide(g_i) * (factor * sign)
            for g_i, sign in zip(parts, self._signs, strict=True)
        ]

    def shown(self, v: Gradients) -> Gradients:
        """Turn the method's result into what the base and the scaler expect."""
        factor = 1.0 if self._scale is None else self._scale
        if not self._plain:
            v = [
                None if v_i is None else as_gradient(v_i * (factor * sign), p)
                for v_i, sign, p in zip(v, self._signs, self._w, strict=True)
            ]
        if not any_sharded(self._w):
            return v
        return [
            None if v_i is None else whole_as(v_i, p)
            for v_i, p in zip(v, self._w, strict=True)
        ]

    def _parts(self, g: Gradients) -> Gradients:
        return [
            local_as([g_i], [p])[0] if is_dtensor(g_i) and g_i is not None else g_i
            for g_i, p in zip(g, self._w, strict=True)
        ]


def _wide(g: Tensor) -> Tensor:
    return g.float() if g.dtype.itemsize < 4 else g

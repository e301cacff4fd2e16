"""SGD with momentum and AdamW, tensor by tensor, each a step at a time.

Rate and weight decay are given per tensor. SGD adds the decay to the gradient, AdamW
shrinks the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Sgd:
    """``m <- mu m + v + lambda w``, ``w <- w - lr m``; m starts at zero."""

    lr: list[float]
    momentum: float
    weight_decay: list[float]
    m: list[Tensor] = field(default_factory=list[Tensor])

    def __call__(self, w: list[Tensor], v: list[Tensor]) -> list[Tensor]:
        """The weights after a step along ``v``."""
        self.m = self.m or [torch.zeros_like(t) for t in w]
        after: list[Tensor] = []
        for i in range(len(w)):
            self.m[i] = self.momentum * self.m[i] + v[i] + self.weight_decay[i] * w[i]
            after.append(w[i] - self.lr[i] * self.m[i])
        return after


@dataclass
class AdamW:
    """Loshchilov and Hutter's algorithm 2, the decay multiplied by lr."""

    lr: list[float]
    betas: tuple[float, float]
    eps: float
    weight_decay: list[float]
    m: list[Tensor] = field(default_factory=list[Tensor])
    v: list[Tensor] = field(default_factory=list[Tensor])
    k: int = 0

    def __call__(self, w: list[Tensor], v: list[Tensor]) -> list[Tensor]:
        """The weights after a step along ``v``."""
        b1, b2 = self.betas
        self.m = self.m or [torch.zeros_like(t) for t in w]
        self.v = self.v or [torch.zeros_like(t) for t in w]
        self.k += 1
        after: list[Tensor] = []
        for i in range(len(w)):
            self.m[i] = b1 * self.m[i] + (1 - b1) * v[i]
            self.v[i] = b2 * self.v[i] + (1 - b2) * v[i] ** 2
            m_hat = self.m[i] / (1 - b1**self.k)
            v_hat = self.v[i] / (1 - b2**self.k)
            kept = w[i] * (1 - self.lr[i] * self.weight_decay[i])
            after.append(kept - self.lr[i] * m_hat / (v_hat.sqrt() + self.eps))
        return after

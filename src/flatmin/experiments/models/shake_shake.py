"""Shake-Shake: two residual branches, mixed at random."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.experiments.models._layers import (
    blocks_per_stage,
    conv3x3,
    head,
    initialised,
)
from flatmin.experiments.models.mixing import Mixing


class ShakeShake(Mixing):
    """``alpha a + (1 - alpha) b``, differentiated with ``beta`` in place of ``alpha``.

    Both are uniform between 0 and 1 and independent, for each image (the best of the
    paper's variants, "Shake-Shake-Image"). In ``eval()`` mode both are 1/2. Where
    ``true_gradient`` is set, ``beta`` is ``alpha``.
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Mix two tensors ``[n, c, h, w]``."""
        if not self.training:
            return (a + b) / 2
        alpha, beta = self.draw(a), self.draw(a)
        return self.scaled(a, alpha, beta) + self.scaled(b, 1 - alpha, 1 - beta)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a = _branch(inputs, outputs, stride)
        self.b = _branch(inputs, outputs, stride)
        self.mix = ShakeShake()
        change = inputs != outputs
        self.shortcut = _Shortcut(inputs, outputs, stride) if change else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.mix(self.a(x), self.b(x))


def _branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        conv3x3(inputs, outputs, stride),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        conv3x3(outputs, outputs),
        nn.BatchNorm2d(outputs),
    )


class _Shortcut(nn.Module):
    """Take half of the channels from every second pixel, half from those between."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, stride, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, stride, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (1, -1, 1, -1))
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], 1))


def shake_shake(
    depth: int, width: int, classes: int, channels: int = 3
) -> nn.Sequential:
    """Build Shake-Shake depth 2x(width)d: stages of ``width`` times 1, 2, 4 channels.

    It maps ``[n, channels, h, w]`` to ``[n, classes]``; made for 32 x 32 pixels, it
    takes any size. With 3 channels and 10 classes, 26 2x96d has 26,192,922 parameters
    (26.2 M in the paper). It is what the SAM paper's tables also call "WRN 26-2x6" and
    the SAM code ``WideResnet28x6_ShakeShake``: ``96 = 6 * 16``.

    Differs from the paper: nothing known but the last layer's initial weights, which
    are those of the SAM code.

    Differs from the SAM code: that code's shortcut has no ReLU and shifts the image to
    the upper left; the paper's code has a ReLU and shifts to the lower right.

    Args:
        depth: ``6 k + 2``, with k blocks in each stage.
        width: channels of each branch in the first stage.
        classes: length of the output rows.
        channels: of the images.

    Raises:
        ValueError: no whole number of blocks makes this depth.

    Example:
        >>> import torch
        >>> from flatmin.experiments.models import shake_shake
        >>> shake_shake(8, 4, classes=7)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 7])

    Reference: Gastaldi. Shake-Shake regularization. 2017, arXiv:1705.07485.
    """
    blocks = blocks_per_stage("Shake-Shake", depth, 2, 2)
    layers: list[nn.Module] = [conv3x3(channels, 16), nn.BatchNorm2d(16)]
    inputs = 16
    for stage in range(3):
        outputs = 2**stage * width
        for k in range(blocks):
            stride = 2 if stage > 0 and k == 0 else 1
            layers.append(_Block(inputs, outputs, stride))
            inputs = outputs
    return initialised(nn.Sequential(*layers, nn.ReLU(), *head(inputs, classes)))

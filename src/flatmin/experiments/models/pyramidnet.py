"""PyramidNet: channels grow with every block; ShakeDrop: blocks dropped at random."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.experiments.models._layers import (
    blocks_per_stage,
    conv3x3,
    head,
    initialised,
    zero_padded,
)
from flatmin.experiments.models.mixing import Mixing


class ShakeDrop(Mixing):
    """``(b + alpha - b alpha) x``, differentiated with ``beta`` in place of ``alpha``.

    ``b`` is 1 with probability ``keep``, else 0; ``alpha`` is uniform between -1 and 1,
    ``beta`` between 0 and 1. In ``eval()`` mode the factor is its expectation,
    ``keep``. Where ``true_gradient`` is set, ``beta`` is ``alpha``.

    All three are drawn for each image, as in the SAM code, so that they do not depend
    on how a batch is spread over devices. Other implementations draw ``b`` once for a
    batch.
    """

    def __init__(self, keep: float) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        """Scale a tensor ``[n, c, h, w]``."""
        if not self.training:
            return self.keep * x
        b = self.draw(x) < self.keep
        alpha, beta = self.draw(x, -1.0), self.draw(x)
        one = torch.ones_like(alpha)
        return self.scaled(x, torch.where(b, one, alpha), torch.where(b, one, beta))


class _Block(nn.Module):
    def __init__(self, branch: nn.Sequential, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = branch
        self.outputs = outputs
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        residual = self.branch(x)
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        return residual + zero_padded(x, self.outputs)


def _basic(inputs: int, width: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.BatchNorm2d(inputs),
        conv3x3(inputs, width, stride),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        conv3x3(width, width),
        nn.BatchNorm2d(width),
    )


def _bottleneck(inputs: int, width: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        conv3x3(width, width, stride),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 4 * width, 1, bias=False),
        nn.BatchNorm2d(4 * width),
    )


def pyramidnet(
    depth: int,
    classes: int,
    channels: int = 3,
    *,
    bottleneck: bool,
    alpha: float = 200,
    shakedrop: bool = False,
    rounded: bool = False,
) -> nn.Sequential:
    """Build PyramidNet-depth: block l of L has ``16 + alpha l / L`` channels.

    It maps ``[n, channels, h, w]`` to ``[n, classes]``; made for 32 x 32 pixels, it
    takes any size. With 3 channels and 10 classes, 272 with bottlenecks and alpha 200
    has 26,049,562 parameters (26.0 M in the paper), 110 with alpha 270 has 28,485,477
    (28.3 M in the paper; its formula makes 28.5 M, and so do other implementations).

    Differs from the paper: initial weights, which are those of the SAM code.

    Differs from the SAM code: that rounds channels to the nearest number where the
    paper rounds down, and so has 26,210,842 parameters; ``rounded`` does the same. The
    SAM code contains only the network with ShakeDrop.

    Args:
        depth: ``9 k + 2`` with bottlenecks, ``6 k + 2`` without; k blocks in a stage.
        classes: length of the output rows.
        channels: of the images.
        bottleneck: 1x1, 3x3 and 1x1 convolutions, to four times the channels, as in
            272; else two of 3x3, as in 110.
        alpha: how many channels are added from the first block to the last.
        shakedrop: whether `ShakeDrop` ends each branch; block l of L is kept with
            probability ``1 - l / 2 L``.
        rounded: whether channels are rounded to the nearest number, instead of down.

    Raises:
        ValueError: no whole number of blocks makes this depth.

    Example:
        >>> import torch
        >>> from flatmin.experiments.models import pyramidnet
        >>> model = pyramidnet(11, classes=7, bottleneck=True, shakedrop=True)
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 7])

    Reference: Han, Kim, Kim. Deep Pyramidal Residual Networks. CVPR 2017,
    arXiv:1610.02915. Yamada, Iwamura, Akiba, Kise. ShakeDrop Regularization for Deep
    Residual Learning. IEEE Access 2019, arXiv:1802.02375.
    """
    blocks = blocks_per_stage("PyramidNet", depth, 2, 3 if bottleneck else 2)
    branch, factor = (_bottleneck, 4) if bottleneck else (_basic, 1)
    layers: list[nn.Module] = [conv3x3(channels, 16), nn.BatchNorm2d(16)]
    inputs = 16
    for k in range(3 * blocks):
        growth = alpha * (k + 1) / (3 * blocks)
        width = 16 + (round(growth) if rounded else math.floor(growth))
        stride = 2 if k in (blocks, 2 * blocks) else 1
        drop = (ShakeDrop(1 - (k + 1) / (6 * blocks)),) if shakedrop else ()
        residual = nn.Sequential(*branch(inputs, width, stride), *drop)
        inputs = factor * width
        layers.append(_Block(residual, inputs, stride))
    layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
    return initialised(nn.Sequential(*layers, *head(inputs, classes)))

"""WideResNet: few layers with many channels, and one without BatchNorm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from flatmin.experiments.models._layers import (
    blocks_per_stage,
    conv3x3,
    head,
    initialised,
)


class _Block(nn.Module):
    """BatchNorm, ReLU and convolution, twice; the shortcut is the identity.

    Where the number of channels changes, the shortcut is a 1x1 convolution after the
    first ReLU.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        a = relu(self.norm1(x))
        residual = self.conv2(relu(self.norm2(self.conv1(a))))
        return residual + (x if self.shortcut is None else self.shortcut(a))


class _BareBlock(nn.Module):
    """A `_Block` with biases in place of BatchNorm, and a scale that starts at zero."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.scale = nn.Parameter(torch.zeros(()))
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        a = relu(x)
        residual = self.scale * self.conv2(relu(self.conv1(a)))
        return residual + (x if self.shortcut is None else self.shortcut(a))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Conv2d | None:
    if inputs == outputs:
        return None
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


def wide_resnet(
    depth: int, width: int, classes: int, channels: int = 3, *, batch_norm: bool = True
) -> nn.Sequential:
    """Build WideResNet-depth-width: stages of ``16, 32, 64`` times ``width`` channels.

    It maps ``[n, channels, h, w]`` to ``[n, classes]``; made for 32 x 32 pixels, it
    takes any size. With 3 channels and 10 classes, 28-10 has 36,479,194 parameters
    (36.5 M in the paper), 16-8 has 10,961,370 (11.0 M), 40-2 has 2,243,546 (2.2 M).

    Differs from the paper: no dropout, and initial weights are those of the SAM code,
    whose last layer is wider than usual.

    Differs from the SAM code: where channels change, that code's shortcut is an average
    over 2 x 2 pixels and channels of zeros, as in AutoAugment's network. The paper's,
    which is taken here, is a 1x1 convolution (258,560 parameters of 28-10).

    Without BatchNorm a residual network's activations grow with depth, and it does not
    train. The SAM paper does not say what its WideResNet-40-10 without BatchNorm does
    about that, and the SAM code does not contain the network. Here each residual branch
    ends with a learned scalar that starts at zero (SkipInit), so that the network
    begins with only its shortcuts and ReLUs. Convolutions other than shortcuts have
    biases. 40-10 then has 55,828,300 parameters.

    Args:
        depth: ``6 k + 4``, with k blocks in each stage.
        width: the factor of the channels, 1 for a plain ResNet.
        classes: length of the output rows.
        channels: of the images.
        batch_norm: False for the network of the SAM paper's Figure 3.

    Raises:
        ValueError: no whole number of blocks makes this depth.

    Example:
        >>> import torch
        >>> from flatmin.experiments.models import wide_resnet
        >>> wide_resnet(10, 1, classes=7)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 7])

    Reference: Zagoruyko, Komodakis. Wide Residual Networks. BMVC 2016,
    arXiv:1605.07146. SkipInit: De, Smith. Batch Normalization Biases Residual Blocks
    Towards the Identity Function in Deep Networks. NeurIPS 2020, arXiv:2002.10444.
    """
    blocks = blocks_per_stage("WideResNet", depth, 4, 2)
    block = _Block if batch_norm else _BareBlock
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    inputs = 16
    for stage in range(3):
        outputs = 16 * 2**stage * width
        for k in range(blocks):
            stride = 2 if stage > 0 and k == 0 else 1
            layers.append(block(inputs, outputs, stride))
            inputs = outputs
    if batch_norm:
        layers.append(nn.BatchNorm2d(inputs))
    return initialised(nn.Sequential(*layers, nn.ReLU(), *head(inputs, classes)))

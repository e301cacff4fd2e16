"""The small ResNet for CIFAR: three stages, shortcuts without parameters."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from flatmin.experiments.models._layers import (
    blocks_per_stage,
    conv3x3,
    head,
    initialised,
    zero_padded,
)


class _Block(nn.Module):
    """Convolution and BatchNorm, twice; ReLU after the first and after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.outputs = outputs
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
        return relu(residual + _option_a(x, self.outputs, self.stride))


def _option_a(x: Tensor, outputs: int, stride: int) -> Tensor:
    """Take every ``stride``-th pixel of ``x``, and append channels of zeros."""
    return zero_padded(x[:, :, ::stride, ::stride], outputs)


def resnet_cifar(
    depth: int, classes: int, channels: int = 3, width: int = 16, stem_stride: int = 1
) -> nn.Sequential:
    """Build ResNet-depth for CIFAR: three stages of 16, 32 and 64 channels.

    It maps ``[n, channels, h, w]`` to ``[n, classes]``; made for 32 x 32 pixels, it
    takes any size. With 3 channels and 10 classes, ResNet-20 has 269,722 parameters
    (0.27 M in the paper), ResNet-32 has 464,154 (0.46 M), ResNet-110 has 1,727,962 (1.7
    M).

    Shortcuts are the paper's option A. The paper does not say where the channels of
    zeros go; here they are the last ones. The SAM paper's label noise experiments use
    ResNet-32; the SAM code does not contain it.

    Differs from the paper: the last layer's initial weights, which are those of the SAM
    code's other networks.

    Args:
        depth: ``6 k + 2``, with k blocks in each stage.
        classes: length of the output rows.
        channels: of the images.
        width: channels of the first stage, the paper's 16; later stages have two and
            four times as many.
        stem_stride: of the first convolution, the paper's 1; 2 takes a quarter of the
            time, as the stem for ImageNet does.

    Raises:
        ValueError: no whole number of blocks makes this depth.

    Example:
        >>> import torch
        >>> from flatmin.experiments.models import resnet_cifar
        >>> resnet_cifar(8, classes=7)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 7])

    Reference: He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR
    2016, arXiv:1512.03385, section 4.2.
    """
    blocks = blocks_per_stage("ResNet", depth, 2, 2)
    first = conv3x3(channels, width, stem_stride)
    layers: list[nn.Module] = [first, nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for stage in range(3):
        outputs = width * 2**stage
        for k in range(blocks):
            stride = 2 if stage > 0 and k == 0 else 1
            layers.append(_Block(inputs, outputs, stride))
            inputs = outputs
    return initialised(nn.Sequential(*layers, *head(inputs, classes)))

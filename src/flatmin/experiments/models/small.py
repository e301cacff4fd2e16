"""The network of ``flatmin compare``."""

from __future__ import annotations

from torch import nn


def small_convnet(channels: int, classes: int, width: int = 32) -> nn.Sequential:
    """Build four 3x3 convolutions with BatchNorm, for images of any size.

    Args:
        channels: of the input ``[n, channels, height, width]``.
        classes: length of the output rows ``[n, classes]``.
        width: channels of the first two convolutions; the last two have twice as many.
    """
    return nn.Sequential(
        *_block(channels, width),
        *_block(width, width),
        nn.MaxPool2d(2),
        *_block(width, 2 * width),
        *_block(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )

"""Parts that the networks share: initialisation, head, zero-padded shortcuts."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

M = TypeVar("M", bound=nn.Module)


def initialised(model: M) -> M:
    """Give a network the initial weights of the SAM code, and return it.

    Convolutions are normal with variance ``2 / fan_out``, the last layer is uniform
    between ``-1 / sqrt(classes)`` and ``1 / sqrt(classes)``, biases are zero.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            bound = module.out_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return model


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Map ``[n, inputs, h, w]`` to ``[n, outputs, h / stride, w / stride]``."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def head(features: int, classes: int) -> tuple[nn.Module, ...]:
    """Return layers for the mean over the image, then ``classes`` numbers per image."""
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)


def zero_padded(x: Tensor, channels: int) -> Tensor:
    """Append channels of zeros to ``x``, up to ``channels`` in all."""
    return F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))


def blocks_per_stage(network: str, depth: int, extra: int, per_block: int) -> int:
    """Return how many blocks of ``per_block`` layers each of three stages has.

    Raises:
        ValueError: no whole number of blocks makes this depth.
    """
    blocks, rest = divmod(depth - extra, 3 * per_block)
    if rest or blocks < 1:
        raise ValueError(
            f"{network} has depth {3 * per_block} k + {extra}, got {depth}. The "
            f"smallest is {3 * per_block + extra}."
        )
    return blocks

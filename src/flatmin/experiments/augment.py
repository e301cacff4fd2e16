"""Augmentation of whole batches, on the device where they are.

AutoAugment, RandAugment and random_resized_crop work image by image; the others take a
few operations for the whole batch. Each function draws from the generator it is given:
a run with the same seed sees the same images. A generator on the CPU gives the same
draws on every device.

The SAM code's order is AutoAugment, flip, crop, standardisation, cutout or mixup.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

Policy = Literal["cifar10", "imagenet", "svhn"]


def basic(x: Tensor, generator: Generator) -> Tensor:
    """The paper's basic augmentation: `flip`, then `crop` from 4 pixels of padding."""
    return crop(flip(x, generator), generator)


def flip(x: Tensor, generator: Generator) -> Tensor:
    """Mirror each image of ``[n, c, h, w]`` left to right with probability 1/2.

    Example:
        >>> import torch
        >>> from flatmin.experiments.augment import flip
        >>> x = torch.tensor([1, 2, 3]).expand(3, 1, 1, 3)
        >>> flip(x, torch.Generator().manual_seed(0))[:, 0, 0].tolist()
        [[1, 2, 3], [3, 2, 1], [3, 2, 1]]
    """
    chosen = _integers(2, len(x), x, generator) == 1
    return torch.where(chosen[:, None, None, None], x.flip(-1), x)


def crop(
    x: Tensor,
    generator: Generator,
    pad: int = 4,
    mode: Literal["reflect", "constant"] = "reflect",
) -> Tensor:
    """Pad each image and cut out a window of its old size, equally likely anywhere.

    Args:
        x: images ``[n, c, h, w]``; floating, if reflected.
        generator: what to draw from: first the rows, then the columns.
        pad: pixels on each side; 4 is the paper's.
        mode: "reflect", as in the SAM code, or "constant" for zeros, as in most code
            for CIFAR. The paper does not say which.

    Returns:
        Images of the same shape and dtype.
    """
    n, _, height, width = x.shape
    top = _integers(2 * pad + 1, n, x, generator)
    left = _integers(2 * pad + 1, n, x, generator)
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = left[:, None] + torch.arange(width, device=x.device)
    image = torch.arange(n, device=x.device)[:, None, None]
    padded = F.pad(x, [pad] * 4, mode)
    windows = padded[image, :, rows[:, :, None], columns[:, None, :]]
    return windows.permute(0, 3, 1, 2).contiguous()


def cutout(
    x: Tensor, generator: Generator, size: int = 16, *, shared: bool = False
) -> Tensor:
    """Set a square of each image to zero, the mean of standardised images.

    Its centre is equally likely to be any pixel, so that squares at the edge are cut
    off. A square of even size has one more row above its centre than below.

    Args:
        x: images ``[n, c, h, w]``.
        generator: what to draw from: first the rows, then the columns.
        size: of the square; 16 is the SAM code's.
        shared: one square for the whole batch, which is what the SAM code does. The
            paper of cutout draws one for each image.

    Returns:
        Images of the same shape and dtype.

    Reference: DeVries, Taylor. Improved Regularization of Convolutional Neural Networks
    with Cutout. 2017, arXiv:1708.04552.
    """
    n, _, height, width = x.shape
    squares = 1 if shared else n
    rows = _near(height, size, squares, x, generator)
    columns = _near(width, size, squares, x, generator)
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def mixup(
    x: Tensor, y: Tensor, classes: int, generator: Generator, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Blend each image and its label with those of another image of the batch.

    ``lam x_i + (1 - lam) x_j`` with one ``lam`` from Beta(alpha, alpha) for the batch,
    and ``j`` a random permutation, as in the paper's code. The SAM code takes the
    larger of ``lam`` and ``1 - lam`` and blends with the batch in reverse order.

    Args:
        x: images ``[n, c, h, w]``, floating.
        y: labels ``[n]``, int64.
        classes: how many there are.
        generator: what to draw from.
        alpha: 1 for uniform ``lam``; the larger, the closer ``lam`` to 1/2. The SAM
            paper tries 1, 8, 16 and 32 on noisy labels.

    Returns:
        The images, and for each a distribution over classes ``[n, classes]``, which
        ``cross_entropy`` takes.

    Raises:
        ValueError: ``alpha`` is not positive.

    Reference: Zhang, Cisse, Dauphin, Lopez-Paz. mixup: Beyond Empirical Risk
    Minimization. ICLR 2018, arXiv:1710.09412.
    """
    if not alpha > 0:
        raise ValueError(f"alpha of mixup must be positive, got {alpha}.")
    from scipy.special import betaincinv

    # The inverse distribution function: torch's own Beta takes no generator.
    share = torch.rand((), generator=generator, device=generator.device)
    lam = float(betaincinv(alpha, alpha, share.item()))
    order = torch.randperm(len(x), generator=generator, device=generator.device)
    order = order.to(x.device)
    target = F.one_hot(y, classes).to(x.dtype)
    mixed = lam * x + (1 - lam) * x[order]
    return mixed, lam * target + (1 - lam) * target[order]


def random_resized_crop(x: Tensor, generator: Generator, size: int) -> Tensor:
    """Resize a random part of each image to a square, with torchvision.

    The part has 8 % to all of the image's area.

    Args:
        x: images ``[n, c, h, w]``, uint8.
        generator: what to draw from.
        size: side of the result.

    Raises:
        TypeError: images are not uint8.

    Reference: Szegedy et al. Going Deeper with Convolutions. CVPR 2015,
    arXiv:1409.4842.
    """
    return _each(_random_resized_crop(size), x, generator)


def centre(x: Tensor, size: int) -> Tensor:
    """Cut out the middle of each image, as is usual for tests on ImageNet.

    The shorter side becomes ``size / 0.875``, of which ``size`` is cut out. Square
    images of that size are left alone.
    """
    from torchvision.transforms.v2.functional import center_crop, resize

    if x.shape[-2:] == (size, size):
        return x
    return center_crop(resize(x, [round(size / 0.875)], antialias=True), [size, size])


def auto_augment(x: Tensor, generator: Generator, policy: Policy) -> Tensor:
    """Apply one of a policy's 25 pairs of operations to each image, with torchvision.

    It works image by image and is far slower than the other functions, on any device:
    docs/models.md has the figures.

    Differs from the SAM code: operations and their strengths are torchvision's, which
    shifts by up to 45 % of the image; the SAM code shifts by up to 250 pixels whatever
    the size, which leaves nothing of an image of 32. Pixels that come in from outside
    are of the same grey, 128.

    Args:
        x: images ``[n, c, h, w]``, uint8, before standardisation; 1 or 3 channels.
        generator: what to draw from.
        policy: the data set for which it was found; CIFAR-100 uses that of CIFAR-10.

    Returns:
        Images of the same shape and dtype.

    Raises:
        TypeError: images are not uint8.
        ValueError: there is no such policy.

    Reference: Cubuk, Zoph, Mane, Vasudevan, Le. AutoAugment: Learning Augmentation
    Policies from Data. CVPR 2019, arXiv:1805.09501.
    """
    return _each(_auto_augment(policy), x, generator)


def rand_augment(
    x: Tensor, generator: Generator, operations: int = 2, magnitude: int = 9
) -> Tensor:
    """Apply random operations of one strength to each image, with torchvision.

    Costs what `auto_augment` costs, and takes the same images.

    Args:
        x: images ``[n, c, h, w]``, uint8, before standardisation; 1 or 3 channels.
        generator: what to draw from.
        operations: how many for each image; 2 is torchvision's default.
        magnitude: from 0 to 30; 9 is torchvision's default.

    Raises:
        TypeError: images are not uint8.

    Reference: Cubuk, Zoph, Shlens, Le. RandAugment: Practical Automated Data
    Augmentation with a Reduced Search Space. NeurIPS 2020, arXiv:1909.13719.
    """
    return _each(_rand_augment(operations, magnitude), x, generator)


def _integers(high: int, n: int, x: Tensor, generator: Generator) -> Tensor:
    drawn = torch.randint(high, (n,), generator=generator, device=generator.device)
    return drawn.to(x.device, non_blocking=True)


def _near(length: int, size: int, n: int, x: Tensor, generator: Generator) -> Tensor:
    """Mark the rows in a window around a random one, bool ``[n, length]``."""
    first = _integers(length, n, x, generator)[:, None] - size // 2
    rows = torch.arange(length, device=x.device)
    return (rows >= first) & (rows < first + size)


@cache
def _random_resized_crop(size: int) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms.v2 import RandomResizedCrop

    return RandomResizedCrop(size, antialias=True)


@cache
def _auto_augment(policy: Policy) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy

    return AutoAugment(AutoAugmentPolicy(policy), fill=128)


@cache
def _rand_augment(operations: int, magnitude: int) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms.v2 import RandAugment

    return RandAugment(operations, magnitude, fill=128)


def _each(
    transform: Callable[[Tensor], Tensor], x: Tensor, generator: Generator
) -> Tensor:
    if x.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, before standardisation, got {x.dtype}.")
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    # torchvision draws from the CPU's global generator, whose state is restored
    # afterwards. torch.manual_seed would also seed accelerators.
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(int(seed))
        return torch.stack([transform(image) for image in x])
    finally:
        torch.set_rng_state(state)

"""Images and labels as tensors: the embedded digits, or a folder of the user's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from flatmin.experiments.config import DIGITS, Comparison
from flatmin.experiments.datasets._folder import digits, in_memory, listed
from flatmin.experiments.datasets._types import Tensors


@dataclass(frozen=True, slots=True)
class Data:
    """A data set, split for good.

    Attributes:
        x: training images ``[n, channels, height, width]``, float32, standardised.
        y: training labels ``[n]``, int64.
        test_x: test images.
        test_y: test labels.
        classes: the names of the classes.
        split: one sentence on where the test set comes from.
    """

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: tuple[str, ...]
    split: str

    def to(self, device: str) -> Data:
        """The same data on a device."""
        return replace(
            self,
            x=self.x.to(device),
            y=self.y.to(device),
            test_x=self.test_x.to(device),
            test_y=self.test_y.to(device),
        )

    def digest(self) -> str:
        """A fingerprint of every pixel and label, to notice that data has changed."""
        sha = hashlib.sha256()
        for tensor in (self.x, self.y, self.test_x, self.test_y):
            sha.update(str(tuple(tensor.shape)).encode())
            sha.update(tensor.contiguous().numpy().tobytes())
        return sha.hexdigest()


def load(config: Comparison) -> Data:
    """The data a comparison is about.

    Raises:
        BadInput: the folder is not a folder of images in classes.
    """
    if config.data == DIGITS:
        return _standardised(*digits())
    train, test, names, split = listed(Path(config.data), config.test_share)
    size = config.image_size
    return _standardised(in_memory(train, size), in_memory(test, size), names, split)


def _standardised(
    train: Tensors, test: Tensors, names: tuple[str, ...], split: str
) -> Data:
    """Mean 0 and standard deviation 1 per channel of the training images."""
    x, test_x = train.x.float(), test.x.float()
    mean = x.mean((0, 2, 3), keepdim=True)
    std = x.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    return Data((x - mean) / std, train.y, (test_x - mean) / std, test.y, names, split)

"""Pictures of nothing, by which classes can be told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_Images = tuple[NDArray[np.uint8], NDArray[np.int64]]


class Pictures:
    """Waves whose colour, direction and length are those of their class.

    Args:
        per_class: training images of each class.
        seed: of the phases and the noise.
    """

    def __init__(self, per_class: int, seed: int) -> None:
        self.per_class = per_class
        self.random = np.random.default_rng(seed)

    def train(self, classes: int, size: int, channels: int) -> _Images:
        """Images ``[n, size, size, channels]`` and labels ``[n]``, classes in turn."""
        y = np.tile(np.arange(classes), self.per_class)
        return self._waves(y, (size, size), channels), y

    def test(self, classes: int, size: int, channels: int) -> _Images:
        """The same, half as many and at least one."""
        y = np.tile(np.arange(classes), max(1, self.per_class // 2))
        return self._waves(y, (size, size), channels), y

    def save(self, path: Path, label: int) -> None:
        """A JPEG file, 48 pixels high and at least as wide."""
        from PIL import Image

        path.parent.mkdir(parents=True, exist_ok=True)
        width = 48 + int(self.random.integers(0, 17))
        Image.fromarray(self._waves(np.array([label]), (48, width), 3)[0]).save(
            path, quality=90
        )

    def _waves(
        self, y: NDArray[np.int64], size: tuple[int, int], channels: int
    ) -> NDArray[np.uint8]:
        k = y[:, None, None]
        rows, columns = np.meshgrid(*(np.arange(n) / n for n in size), indexing="ij")
        along = rows * np.cos(2.4 * k) + columns * np.sin(2.4 * k)
        phase = self.random.uniform(0, 1, (len(y), 1, 1))
        wave = np.sin(2 * np.pi * ((1 + k % 4) * along + phase))[..., None]
        colour = np.sin(1.7 * k[..., None] + 2.1 * np.arange(channels))
        noise = self.random.normal(0, 8, (*wave.shape[:3], channels))
        return (128 + 70 * colour + 40 * wave + noise).clip(0, 255).astype(np.uint8)

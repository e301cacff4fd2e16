"""The images of a comparison: the embedded digits, or a folder of the user's."""

from __future__ import annotations

from pathlib import Path

from flatmin.experiments import datasets
from flatmin.experiments.config import DIGITS, Comparison


def load(config: Comparison) -> datasets.DataSet:
    """The data a comparison is about, in memory.

    Raises:
        BadInput: the folder is not a folder of images in classes.
    """
    if config.data == DIGITS:
        return datasets.load(DIGITS, Path())
    path = Path(config.data)
    return datasets.load_folder(path, config.image_size, config.test_share)


def shape(data: datasets.DataSet) -> tuple[int, int, int]:
    """Channels, height and width of its images, which are in memory."""
    assert isinstance(data.train, datasets.Tensors)
    channels, height, width = data.train.x.shape[1:]
    return channels, height, width

"""The types of a loaded data set and its parts, and what a part holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from flatmin.experiments.augment import Policy
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets._images import open_image
from flatmin.experiments.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

#: The statistics of ImageNet's training images with which its networks were trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


#: What a data set holds.
Kind = Literal["images", "sentences", "series"]

#: What to set for data that has no images.
_ASKED_WITH: dict[Kind, str] = {"series": "horizon=96", "sentences": "tokens=64"}

_HOLDS: dict[Kind, str] = {
    "images": "has images",
    "sentences": "has sentences",
    "series": "is a series",
}


class ImageFiles(Dataset[tuple["Image", int]]):
    """Images on disk, each opened when it is read.

    Args:
        root: folder below which they are.
        names: their paths, relative to ``root``.
        y: labels ``[n]``, int64.
    """

    def __init__(self, root: Path, names: Sequence[str], y: Tensor) -> None:
        self.root = root
        self.names = tuple(names)
        self.y = y

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        """Return the image as RGB, and its label.

        Raises:
            BadInput: the file is missing or no image.
        """
        return open_image(self.root / self.names[index]), int(self.y[index])


@dataclass(frozen=True, slots=True)
class Tensors:
    """A split in memory.

    Attributes:
        x: images ``[n, channels, height, width]``, uint8.
        y: labels ``[n]``, int64.
    """

    x: Tensor
    y: Tensor


@dataclass(frozen=True, slots=True)
class Files:
    """A split that is read image by image.

    Attributes:
        images: yields pairs of an RGB image of PIL, of any size, and a label.
        y: labels ``[n]``, int64. They are the ones used, even where they differ from
            those of ``images``.
    """

    images: Dataset[tuple[Image, int]]
    y: Tensor


@dataclass(frozen=True, slots=True)
class Series:
    """A part of a series of numbers; the whole series is in memory.

    Attributes:
        values: the whole series ``[channels, time]``, float64, as it was measured.
        y: the steps of this part ``[n]``, int64, in ascending order. Once windows have
            been chosen, the first step of each window's forecast.
    """

    values: Tensor
    y: Tensor


@dataclass(frozen=True, slots=True)
class Sentences:
    """A split of sentences, in memory.

    Attributes:
        x: their word pieces ``[n, longest]``, int64; 0 fills up shorter ones.
        y: labels ``[n]``, int64.
    """

    x: Tensor
    y: Tensor


Split = Tensors | Files | Series | Sentences


class Parts(NamedTuple):
    """The parts of a data set, as its reader returns them."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    split: str
    validation: Split | None = None


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set with its final split.

    Attributes:
        name: a key of ``SETS``, or the path of an image folder.
        train: what is trained on.
        test: what is tested on.
        classes: the names of the classes; none of a series.
        mean: per channel, of pixels from 0 to 1: of the training images if they are in
            memory, else ImageNet's. For a series, that of the steps to train on;
            sentences have none.
        std: standard deviation, likewise.
        policy: AutoAugment's policy for such images; None if there is none.
        split: one sentence on where the test set comes from.
        validation: for the choice of settings; None where some of ``train`` has to be
            held out for that.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    policy: Policy | None
    split: str
    validation: Split | None = None

    def digest(self) -> str:
        """Return a fingerprint that tells whether data has changed.

        It covers every pixel and label of images in memory; every number and window of
        a series; every piece and label of sentences; of files the labels, paths, sizes,
        and 1,024 bytes in the middle; in the parts for training, tests and, if any,
        validation.
        """
        sha = hashlib.sha256()
        parts = (self.train, self.test, self.validation)
        for split in (part for part in parts if part is not None):
            sha.update(memory(split.y))
            if not isinstance(split, Files):
                x = split.values if isinstance(split, Series) else split.x
                sha.update(str(tuple(x.shape)).encode())
                sha.update(memory(x))
            else:
                for root, name in _located(split.images):
                    size, bits = _middle(root / name)
                    sha.update(f"{name}\0{size}\0".encode() + bits)
        return sha.hexdigest()


def _middle(path: Path) -> tuple[int, bytes]:
    """Return how many bytes a file has, and the 1,024 in its middle.

    Those of two pictures differ, and a million files can be read so.

    Raises:
        BadInput: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size // 2 - 512))
            return size, file.read(1024)
    except OSError as error:
        reason = f"not a readable image: {path} ({error.strerror})"
        raise BadInput(reason) from None


def memory(x: Tensor) -> memoryview:
    """Return the bytes of a tensor in main memory; of a copy if not contiguous."""
    array: Any = x.contiguous().numpy()
    return memoryview(array)


def statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel; pixels are from 0 to 1."""
    if isinstance(split, Sentences):
        return (), ()
    if isinstance(split, Files):
        return IMAGENET_MEAN, IMAGENET_STD
    if isinstance(split, Series):
        std, mean = torch.std_mean(split.values[:, split.y], dim=1, correction=0)
        return tuple(mean.tolist()), tuple(std.clamp_min(1e-6).tolist())
    # Counting the 256 levels is exact, and needs no copy of the images as floats.
    channels = split.x.unbind(1)
    counts = torch.stack([c.flatten().bincount(minlength=256) for c in channels])
    share = counts.double() / counts.sum(1, keepdim=True)
    level = torch.linspace(0, 1, 256, dtype=torch.float64)
    mean = (share * level).sum(1)
    variance = (share * (level - mean[:, None]) ** 2).sum(1)
    return tuple(mean.tolist()), tuple(variance.sqrt().clamp_min(1e-6).tolist())


def data_set(name: str, parts: Parts, policy: Policy | None) -> DataSet:
    """Make a data set of a reader's parts, with its statistics."""
    mean, std = statistics(parts.train)
    return DataSet(name, *parts[:3], mean, std, policy, parts.split, parts.validation)


def _located(images: Dataset[tuple[Image, int]]) -> list[tuple[Path, str]]:
    if isinstance(images, Subset):
        whole = _located(images.dataset)
        return [whole[i] for i in images.indices]
    if isinstance(images, ImageFiles):
        return [(images.root, name) for name in images.names]
    raise TypeError(f"no files are known of {type(images).__name__}.")


def kind_of(split: Split) -> Kind:
    """Return what a loaded part holds."""
    if isinstance(split, Series):
        return "series"
    return "sentences" if isinstance(split, Sentences) else "images"


def check_kind(experiment: Experiment, name: str, kind: Kind) -> None:
    """Refuse data that an experiment does not ask for: a forecast of images, say.

    Args:
        experiment: asks for a forecast by ``horizon`` and for sentences by ``tokens``.
        name: of the data.
        kind: what it holds.

    Raises:
        BadInput: it is something else.
    """
    horizon, tokens = experiment.horizon, experiment.tokens
    if horizon is not None and kind != "series":
        raise BadInput(
            f"horizon {horizon} asks for a forecast, and {name} {_HOLDS[kind]}. "
            "Use --set data=etth1, or horizon=null."
        )
    if tokens is not None and kind != "sentences":
        raise BadInput(
            f"tokens {tokens} asks for sentences, and {name} {_HOLDS[kind]}. "
            "Use --set data=sst2, or tokens=null."
        )
    if horizon is None and tokens is None and kind != "images":
        raise BadInput(
            f"{name} {_HOLDS[kind]}. Use --set {_ASKED_WITH[kind]}, and a network for "
            "that."
        )

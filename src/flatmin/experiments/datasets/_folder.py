"""Image folders, and the digits that come with scikit-learn, as bytes."""

from __future__ import annotations

from pathlib import Path
from statistics import median_low
from typing import Any

import torch
from torch import Tensor

from flatmin.experiments import augment
from flatmin.experiments.datasets._cache import kept
from flatmin.experiments.datasets._images import open_image
from flatmin.experiments.datasets._layout import Listed, listed, shuffled, trained
from flatmin.experiments.datasets._types import (
    DataSet,
    Files,
    ImageFiles,
    Parts,
    Split,
    Tensors,
    data_set,
)
from flatmin.experiments.errors import BadInput

#: Images up to this side, in pixels, are kept in memory.
SMALL = 64

#: Most bytes of images that are read into memory to be measured.
_MOST = 8 * 2**30

#: How many images are looked at to find the side of most.
_LOOKED_AT = 25


def digits() -> tuple[Tensors, Tensors, tuple[str, ...], str]:
    """Handwritten digits of 8 x 8 pixels, grey levels 0 to 16."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    x = torch.from_numpy(found.images).to(torch.uint8).unsqueeze(1)
    y = torch.from_numpy(found.target).long()
    order = shuffled(len(y))
    train, test = order[:900], order[900:]
    names = tuple(str(name) for name in found.target_names)
    split = "900 of the 1,797 images for training, the others for the test; fixed seed"
    return Tensors(x[train], y[train]), Tensors(x[test], y[test]), names, split


def folder(root: Path, size: int | None, cache: Path) -> Parts:
    """Read the images of a folder, into memory if they are small.

    Args:
        root: as of `listed`.
        size: side to which images are brought; None for the median side of some
            training images.
        cache: folder in which images in memory are kept for the next time.

    Raises:
        BadInput: this is no folder of images in classes.
    """
    found = listed(root)
    side = size or _side(found.train)
    if side > SMALL:
        return _parts(found, [Files(part, part.y) for part in _splits(found)])
    return _parts(found, kept(cache, _splits(found), side, in_memory))


def folder_in_memory(root: Path, side: int, outputs: int | None) -> DataSet:
    """Read all images of a folder, or of its ``train``, to measure on them.

    They are cropped like test images. The test set consists of the same images.

    Args:
        root: as of `listed`.
        side: to which images are brought, in pixels.
        outputs: of the network; None for as many as there are classes.

    Raises:
        BadInput: this is no folder of images in classes, they need too much memory, or
            there are fewer outputs than classes.
    """
    images, classes = trained(root)
    if outputs is not None and outputs < len(classes):
        raise BadInput(
            f"{root} has {len(classes)} classes, more than the {outputs} of --classes."
        )
    if (size := 3 * side * side * len(images)) > _MOST:
        raise BadInput(
            f"{len(images):,} images of {side} x {side} pixels need "
            f"{size / 2**30:.1f} GiB of memory, and at most {_MOST / 2**30:.0f} are "
            "used. Give a folder of fewer."
        )
    more = range(len(classes), outputs or 0)
    split = Tensors(
        torch.cat([_centre(images, k, side) for k in range(len(images))]), images.y
    )
    names = (*classes, *(f"output {k}" for k in more))
    return data_set(str(root), Parts(split, split, names, "all images"), None)


def _centre(images: ImageFiles, index: int, side: int) -> Tensor:
    from torchvision.transforms.v2.functional import pil_to_tensor

    return augment.centre(pil_to_tensor(images[index][0])[None], side)


def in_memory(images: ImageFiles, size: int) -> Tensors:
    """Read images as RGB ``[n, 3, size, size]``: resize the shorter side, cut out."""
    pixels = [_square(images.root / name, size) for name in images.names]
    return Tensors(torch.stack(pixels), images.y)


def _splits(found: Listed) -> list[ImageFiles]:
    splits = (found.train, found.test, found.validation)
    return [images for images in splits if images is not None]


def _parts(found: Listed, splits: list[Tensors] | list[Files]) -> Parts:
    train, test, *rest = splits
    validation: Split | None = rest[0] if rest else None
    return Parts(train, test, found.classes, found.split, validation)


def _side(images: ImageFiles) -> int:
    names = images.names[:: -(-len(images) // _LOOKED_AT)]
    return median_low(min(open_image(images.root / name).size) for name in names)


def _square(path: Path, size: int) -> Tensor:
    from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize

    image = pil_to_tensor(open_image(path))
    if image.shape[1:] == (size, size):
        return image
    return center_crop(resize(image, [size], antialias=True), [size, size])

"""Image folders, and the digits that come with scikit-learn, as bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flatmin.experiments.datasets._cache import kept
from flatmin.experiments.datasets._types import (
    Files,
    ImageFiles,
    Parts,
    Tensors,
    open_image,
)
from flatmin.experiments.errors import BadInput

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
_SPLIT_SEED = 0

#: Images up to this side, in pixels, lie in memory.
SMALL = 64


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


def folder(root: Path, size: int | None, cache: Path, test_share: float = 0.2) -> Parts:
    """The images of a folder, in memory if they are small.

    Args:
        root: holds ``train/CLASS/*`` and ``test/CLASS/*``, or ``CLASS/*``.
        size: side to which images are brought; None for that of the first image.
        cache: folder in which images in memory are kept for the next time.
        test_share: of a folder without train and test.

    Raises:
        BadInput: this is no folder of images in classes.
    """
    train, test, classes, split = listed(root, test_share)
    side = size or min(open_image(root / train.names[0]).size)
    if side > SMALL:
        return Parts(Files(train, train.y), Files(test, test.y), classes, split)
    trained, tested = kept(cache, (train, test), side, in_memory)
    return Parts(trained, tested, classes, split)


def whole_folder(root: Path, size: int, test_share: float) -> Parts:
    """The images of a folder, in memory; arguments as of `folder`."""
    train, test, classes, split = listed(root, test_share)
    return Parts(in_memory(train, size), in_memory(test, size), classes, split)


def listed(
    root: Path, test_share: float
) -> tuple[ImageFiles, ImageFiles, tuple[str, ...], str]:
    """What is in a folder, without opening it: training and test images, classes."""
    if not root.is_dir():
        raise BadInput(f"no such folder: {root}")
    if (root / "train").is_dir() and (root / "test").is_dir():
        classes = _classes(root / "train")
        if strange := set(_classes(root / "test")) - set(classes):
            named = ", ".join(sorted(strange))
            raise BadInput(f"{root}/test has classes that train lacks: {named}.")
        train = _labelled(root, "train", classes)
        test = _labelled(root, "test", classes)
        return train, test, classes, "the folder's own train and test"
    classes = _classes(root)
    whole = _labelled(root, "", classes)
    train, test = (_chosen(whole, i) for i in split_each_class(whole.y, test_share))
    if not len(train) or not len(test):
        raise BadInput(f"{root} has too few images to split: {len(whole)}.")
    split = f"{test_share:.0%} of each class for the test, drawn with a fixed seed"
    return train, test, classes, split


def in_memory(images: ImageFiles, size: int) -> Tensors:
    """All of them as RGB ``[n, 3, size, size]``: shorter side resized, centre."""
    pixels = [_square(images.root / name, size) for name in images.names]
    return Tensors(torch.stack(pixels), images.y)


def split_each_class(y: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Indices of the examples that stay, and of ``share`` of each class.

    At least one example of each class is taken and one stays, if it has two.
    """
    order = shuffled(len(y))
    stay: list[Tensor] = []
    taken: list[Tensor] = []
    for label in y.unique():
        mine = order[y[order] == label]
        cut = min(max(round(share * len(mine)), 1), len(mine) - 1)
        taken.append(mine[:cut])
        stay.append(mine[cut:])
    return torch.cat(stay), torch.cat(taken)


def shuffled(n: int) -> Tensor:
    """The numbers from 0 to n - 1 in an order that is the same every time."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(_SPLIT_SEED))


def _classes(root: Path) -> tuple[str, ...]:
    names = sorted(p.name for p in root.iterdir() if p.is_dir())
    full = tuple(name for name in names if next(_files(root / name), None))
    if not full:
        raise BadInput(
            f"no images in {root}. Put them into one folder per class: {root}/CLASS/*."
        )
    if len(full) == 1:
        raise BadInput(f"only one class in {root}: {full[0]!r}; at least 2 needed.")
    return full


def _files(root: Path) -> Iterator[Path]:
    return (p for p in sorted(root.iterdir()) if p.suffix.lower() in _SUFFIXES)


def _labelled(root: Path, part: str, classes: Sequence[str]) -> ImageFiles:
    found = [
        (str(path.relative_to(root)), label)
        for label, name in enumerate(classes)
        if (root / part / name).is_dir()
        for path in _files(root / part / name)
    ]
    names, y = zip(*found, strict=True)
    return ImageFiles(root, names, torch.tensor(y))


def _chosen(images: ImageFiles, index: Tensor) -> ImageFiles:
    names = [images.names[i] for i in index.tolist()]
    return ImageFiles(images.root, names, images.y[index])


def _square(path: Path, size: int) -> Tensor:
    from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize

    image = pil_to_tensor(open_image(path))
    if image.shape[1:] == (size, size):
        return image
    return center_crop(resize(image, [size], antialias=True), [size, size])

"""Images and labels as tensors: the embedded digits, or a folder of the user's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flatmin.experiments.config import DIGITS, Comparison
from flatmin.experiments.errors import BadInput

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
_SPLIT_SEED = 0


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
        return _digits()
    return _folder(Path(config.data), config.image_size, config.test_share)


def _digits() -> Data:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    x = torch.from_numpy(digits.images).float().unsqueeze(1)
    y = torch.from_numpy(digits.target).long()
    order = _shuffle(len(y))
    train, test = order[:900], order[900:]
    names = tuple(str(name) for name in digits.target_names)
    split = "900 of the 1,797 images for training, the others for the test; fixed seed"
    return _standardised(x[train], y[train], x[test], y[test], names, split)


def _folder(root: Path, size: int, test_share: float) -> Data:
    if not root.is_dir():
        raise BadInput(f"no such folder: {root}")
    if (root / "train").is_dir() and (root / "test").is_dir():
        names = _classes(root / "train")
        if strange := set(_classes(root / "test")) - set(names):
            named = ", ".join(sorted(strange))
            raise BadInput(f"{root}/test has classes that train lacks: {named}.")
        x, y = _images(root / "train", names, size)
        test_x, test_y = _images(root / "test", names, size)
        split = "the folder's own train and test"
    else:
        names = _classes(root)
        x, y = _images(root, names, size)
        train, test = _split_each_class(y, test_share)
        if len(train) == 0 or len(test) == 0:
            raise BadInput(f"{root} has too few images to split: {len(y)}.")
        x, y, test_x, test_y = x[train], y[train], x[test], y[test]
        split = f"{test_share:.0%} of each class for the test, drawn with a fixed seed"
    return _standardised(x, y, test_x, test_y, names, split)


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


def _files(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.iterdir()) if p.suffix.lower() in _SUFFIXES)


def _images(root: Path, names: tuple[str, ...], size: int) -> tuple[Tensor, Tensor]:
    found = [
        (_image(path, size), label)
        for label, name in enumerate(names)
        if (root / name).is_dir()
        for path in _files(root / name)
    ]
    if not found:
        raise BadInput(f"no images in {root}.")
    x, y = zip(*found, strict=True)
    return torch.stack(x), torch.tensor(y)


def _image(path: Path, size: int) -> Tensor:
    """One picture as RGB bytes ``[3, size, size]``: shorter side resized, centre."""
    from PIL import Image, UnidentifiedImageError
    from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize

    try:
        with Image.open(path) as picture:
            image = pil_to_tensor(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"not a readable image: {path} ({error})") from None
    except Image.DecompressionBombError as error:
        raise BadInput(f"image too large: {path} ({error})") from None
    return center_crop(resize(image, [size], antialias=True), [size, size])


def _split_each_class(y: Tensor, test_share: float) -> tuple[Tensor, Tensor]:
    order = _shuffle(len(y))
    train: list[Tensor] = []
    test: list[Tensor] = []
    for label in y.unique():
        mine = order[y[order] == label]
        cut = min(max(round(test_share * len(mine)), 1), len(mine) - 1)
        test.append(mine[:cut])
        train.append(mine[cut:])
    return torch.cat(train), torch.cat(test)


def _shuffle(n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(_SPLIT_SEED))


def _standardised(
    x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, names: tuple[str, ...], s: str
) -> Data:
    """Mean 0 and standard deviation 1 per channel of the training images."""
    x, test_x = x.float(), test_x.float()
    mean = x.mean((0, 2, 3), keepdim=True)
    std = x.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    return Data((x - mean) / std, y, (test_x - mean) / std, test_y, names, s)

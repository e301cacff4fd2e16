"""SVHN, Fashion-MNIST and the digits, in memory."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from flatmin.experiments.datasets._fetch import Remote, check, fetch, reading
from flatmin.experiments.datasets._folder import digits as raw_digits
from flatmin.experiments.datasets._types import Parts, Tensors


def svhn(folder: Path) -> Parts:
    """Read street numbers; the training images are those of train and of extra."""
    from torchvision.datasets import SVHN

    files = [Remote(url, md5) for url, _, md5 in SVHN.split_list.values()]
    fetch("SVHN", files, folder)
    train = _svhn(folder, "train", "extra")
    test = _svhn(folder, "test")
    split = f"the {len(test.y):,} official test images; train and extra are trained on"
    return Parts(train, test, tuple("0123456789"), split)


def _svhn(folder: Path, *splits: Literal["train", "extra", "test"]) -> Tensors:
    from torchvision.datasets import SVHN

    class Checked(SVHN):
        # `fetch` has compared the checksums, except those of made-up files.
        def _check_integrity(self) -> bool:
            return True

    x: list[Tensor] = []
    y: list[Tensor] = []
    for split in splits:
        path = folder / SVHN.split_list[split][1]
        check(path, None)
        with reading(path):
            found = Checked(folder, split)
            x.append(torch.from_numpy(found.data))
            y.append(torch.from_numpy(found.labels))
    return Tensors(torch.cat(x).contiguous(), torch.cat(y))


def fashion_mnist(folder: Path) -> Parts:
    """Read Zalando's articles from the compressed files.

    torchvision reads unpacked ones, but the checksums are those of the compressed.
    """
    from torchvision.datasets import FashionMNIST

    raw = folder / "FashionMNIST" / "raw"
    mirror = FashionMNIST.mirrors[0]
    files = [Remote(mirror + name, md5) for name, md5 in FashionMNIST.resources]
    fetch("Fashion-MNIST", files, folder, "FashionMNIST/raw")
    train, test = (
        Tensors(
            _idx(raw / f"{split}-images-idx3-ubyte.gz", 3).unsqueeze(1),
            _idx(raw / f"{split}-labels-idx1-ubyte.gz", 1).long(),
        )
        for split in ("train", "t10k")
    )
    split = f"the {len(test.y):,} official test images"
    return Parts(train, test, tuple(FashionMNIST.classes), split)


def _idx(path: Path, dimensions: int) -> Tensor:
    """Read an array of bytes after two zeros, type 8, and big-endian dimensions."""
    check(path, None)
    with reading(path):
        data = gzip.decompress(path.read_bytes())
        if data[:4] != bytes([0, 0, 8, dimensions]):
            raise ValueError("no idx file of bytes")
        shape = np.frombuffer(data, ">i4", dimensions, 4)
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
        return torch.from_numpy(values.reshape(shape).copy())


def digits() -> Parts:
    """Read handwritten digits; their grey levels 0 to 16 become 0 to 240."""
    train, test, names, split = raw_digits()
    train, test = (Tensors(part.x * 15, part.y) for part in (train, test))
    return Parts(train, test, names, split)

"""CIFAR-10 and CIFAR-100, which come as pickles.

To unpickle a file is to run the code in it. There are therefore two guards: checksums
are compared with those of the published files first, as torchvision does, and the
unpickler makes only arrays and Python's plain values, which is all that the published
files hold.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from flatmin.experiments.datasets._fetch import (
    Remote,
    check,
    damaged,
    fetch,
    reading,
)
from flatmin.experiments.datasets._types import Parts, Tensors

_RECONSTRUCT = np.empty(0, np.uint8).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def unpickled(path: Path) -> dict[str, Any]:
    """Read the dictionary in a pickle of arrays, strings, numbers, lists and dicts.

    Raises:
        BadInput: the file holds anything else, or is damaged.
    """
    with reading(path), path.open("rb") as file:
        value = _ArraysOnly(file, encoding="latin1").load()
    if not isinstance(value, dict):
        raise damaged(path, f"it holds a {type(value).__name__}")
    return value


def cifar(name: Literal["CIFAR10", "CIFAR100"], folder: Path) -> Parts:
    """Read either data set, by torchvision's list of files and checksums."""
    import torchvision.datasets

    known = getattr(torchvision.datasets, name)
    archive = Remote(known.url, known.tgz_md5, known.base_folder)
    fetch(f"CIFAR-{name.removeprefix('CIFAR')}", [archive], folder)
    base = folder / known.base_folder
    names = [*known.train_list, *known.test_list]
    for file, md5 in [*names, (known.meta["filename"], known.meta["md5"])]:
        check(base / file, md5)
    train = _split([base / file for file, _ in known.train_list])
    test = _split([base / file for file, _ in known.test_list])
    meta = base / known.meta["filename"]
    with reading(meta):
        classes = tuple(str(label) for label in unpickled(meta)[known.meta["key"]])
    return Parts(train, test, classes, f"the {len(test.y):,} official test images")


def _split(paths: Sequence[Path]) -> Tensors:
    batches = [_batch(path) for path in paths]
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return Tensors(x, y)


def _batch(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    entry = unpickled(path)
    with reading(path):
        x = torch.from_numpy(entry["data"]).view(-1, 3, 32, 32)
        y = torch.tensor(entry.get("labels") or entry["fine_labels"])
        if (x.dtype, y.dtype, len(x)) != (torch.uint8, torch.int64, len(y)):
            raise ValueError("images and labels do not fit")
    return x, y

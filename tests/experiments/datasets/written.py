"""Made-up images in the files of the real data sets, which the readers then read."""

from __future__ import annotations

import gzip
import pickle
import pickletools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.experiments.datasets import photographs as files
from tests.experiments.datasets.pictures import Pictures

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy "
    "bridge bus butterfly camel can castle caterpillar cattle chair chimpanzee clock "
    "cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish "
    "forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion "
    "lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange "
    "orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine "
    "possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank "
    "telephone television tiger tractor train trout tulip turtle wardrobe whale "
    "willow_tree wolf woman worm"
)


def write_tiny(name: str, root: Path, per_class: int = 4, seed: int = 0) -> None:
    """Write ``root / name``, which ``load`` then reads like the real data set.

    CIFAR, SVHN and Fashion-MNIST have all their classes, of the others 6 are there.
    Images are as large as the real ones, photographs 48 pixels high.

    Args:
        name: a key of ``SETS``, but for ``"digits"``.
        root: where data sets are.
        per_class: training images of each class; there are half as many test images,
            at least one.
        seed: of the noise in the images.
    """
    shutil.rmtree(root / name, ignore_errors=True)
    (root / name).mkdir(parents=True)
    _WRITERS[name](root / name, Pictures(per_class, seed))


#: Bytes and text as Python 3 writes them, and as Python 2 did.
_PYTHON2 = {"BINBYTES": b"T", "SHORT_BINBYTES": b"U", "BINUNICODE": b"T"}


def _pickle(path: Path, value: dict[str, Any]) -> None:
    """Write what Python 2 would have written, in which CIFAR's files were made."""
    data = bytearray(pickle.dumps(value, 3))
    for opcode, _, at in pickletools.genops(bytes(data)):
        if opcode.name in _PYTHON2 and at is not None:
            data[at : at + 1] = _PYTHON2[opcode.name]
    data[1] = 2
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def _rows(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images ``[n, h, w, c]`` as CIFAR has them: all red, all green, all blue."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(len(x), -1)


def _cifar10(folder: Path, pictures: Pictures) -> None:
    base, names = folder / "cifar-10-batches-py", _CIFAR10.split()
    x, y = pictures.train(10, 32, 3)
    parts = [(f"data_batch_{k + 1}", x[k::5], y[k::5]) for k in range(5)]
    for file, pixels, labels in (*parts, ("test_batch", *pictures.test(10, 32, 3))):
        png = [f"{names[k]}_s_{i:06}.png" for i, k in enumerate(labels.tolist())]
        entry = {"batch_label": file, "labels": labels.tolist(), "data": _rows(pixels)}
        _pickle(base / file, {**entry, "filenames": png})
    meta = {"num_cases_per_batch": len(x) // 5, "label_names": names, "num_vis": 3072}
    _pickle(base / "batches.meta", meta)


def _cifar100(folder: Path, pictures: Pictures) -> None:
    base, names = folder / "cifar-100-python", _CIFAR100.split()
    for file, (x, y) in (
        ("train", pictures.train(100, 32, 3)),
        ("test", pictures.test(100, 32, 3)),
    ):
        png = [f"{names[label]}_s_{i:06}.png" for i, label in enumerate(y.tolist())]
        entry = {"filenames": png, "batch_label": file, "fine_labels": y.tolist()}
        coarse = (y // 5).tolist()
        _pickle(base / file, {**entry, "coarse_labels": coarse, "data": _rows(x)})
    coarse_names = [f"coarse_{k}" for k in range(20)]
    _pickle(
        base / "meta", {"fine_label_names": names, "coarse_label_names": coarse_names}
    )


def _svhn(folder: Path, pictures: Pictures) -> None:
    from scipy.io import savemat

    for split, (x, y) in (
        ("train", pictures.train(10, 32, 3)),
        ("extra", pictures.train(10, 32, 3)),
        ("test", pictures.test(10, 32, 3)),
    ):
        labels = np.where(y == 0, 10, y).astype(np.uint8)[:, None]
        images = {"X": x.transpose(1, 2, 3, 0), "y": labels}
        savemat(folder / f"{split}_32x32.mat", images, do_compression=True)


def _fashion_mnist(folder: Path, pictures: Pictures) -> None:
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for split, (x, y) in (
        ("train", pictures.train(10, 28, 1)),
        ("t10k", pictures.test(10, 28, 1)),
    ):
        _idx(raw / f"{split}-images-idx3-ubyte.gz", x[..., 0])
        _idx(raw / f"{split}-labels-idx1-ubyte.gz", y.astype(np.uint8))


def _idx(path: Path, values: NDArray[np.uint8]) -> None:
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    # The time of writing would be in the file.
    path.write_bytes(gzip.compress(head + values.tobytes(), mtime=0))


_WRITERS: dict[str, Callable[[Path, Pictures], None]] = {
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "svhn": _svhn,
    "fashion-mnist": _fashion_mnist,
    "imagenet": files.imagenet,
    "flowers": files.flowers,
    "pets": files.pets,
    "food101": files.food101,
    "cars": files.cars,
    "aircraft": files.aircraft,
    "birdsnap": files.birdsnap,
}

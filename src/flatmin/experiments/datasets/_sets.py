"""The data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from flatmin.experiments.augment import Policy
from flatmin.experiments.datasets import _large, _series, _small, _text
from flatmin.experiments.datasets._cifar import cifar
from flatmin.experiments.datasets._folder import folder as image_folder
from flatmin.experiments.datasets._large import birdsnap
from flatmin.experiments.datasets._types import (
    DataSet,
    Kind,
    Parts,
    Split,
    Tensors,
    data_set,
)
from flatmin.experiments.errors import BadInput, expanded, unknown


@dataclass(frozen=True, slots=True)
class Source:
    """A data set with a name.

    Attributes:
        title: its name in tables and messages.
        classes: how many there are; 0 of a series.
        channels: of its images, or of the series; 0 of sentences.
        size: side of its images, in pixels; None where they differ.
        train: how many images or sentences, or steps of a series, are trained on.
        test: how many are tested on.
        large: whether images are read one by one, and not kept in memory.
        load: reads it from a folder, and downloads it there if possible.
        url: its authors' page.
        policy: AutoAugment's policy for it; that of ImageNet for photographs, as in
            AutoAugment's paper.
        complete: whether all images must be there.
        note: what to know before using it.
        kind: what it holds.
        validation: how many examples it has for the choice of settings alone; 0 if
            some of the training examples are held out for it.
    """

    title: str
    classes: int
    channels: int
    size: int | None
    train: int
    test: int
    large: bool
    load: Callable[[Path], Parts]
    url: str
    policy: Policy | None = None
    complete: bool = True
    note: str = ""
    kind: Kind = "images"
    validation: int = 0


_Photographs = partial(Source, channels=3, size=None, large=True, policy="imagenet")
_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"

#: The data sets by name.
SETS: dict[str, Source] = {
    "cifar10": Source(
        title="CIFAR-10",
        classes=10,
        channels=3,
        size=32,
        train=50_000,
        test=10_000,
        large=False,
        load=partial(cifar, "CIFAR10"),
        url=_CIFAR,
        policy="cifar10",
    ),
    "cifar100": Source(
        title="CIFAR-100",
        classes=100,
        channels=3,
        size=32,
        train=50_000,
        test=10_000,
        large=False,
        load=partial(cifar, "CIFAR100"),
        url=_CIFAR,
        policy="cifar10",
    ),
    "svhn": Source(
        title="SVHN",
        classes=10,
        channels=3,
        size=32,
        train=604_388,
        test=26_032,
        large=False,
        load=_small.svhn,
        url="http://ufldl.stanford.edu/housenumbers",
        policy="svhn",
        note="train (73,257) and extra (531,131) together",
    ),
    "fashion-mnist": Source(
        title="Fashion-MNIST",
        classes=10,
        channels=1,
        size=28,
        train=60_000,
        test=10_000,
        large=False,
        load=_small.fashion_mnist,
        url="https://github.com/zalandoresearch/fashion-mnist",
        note="the SAM code standardises it with the statistics of MNIST",
    ),
    "digits": Source(
        title="Digits",
        classes=10,
        channels=1,
        size=8,
        train=900,
        test=897,
        large=False,
        load=lambda _: _small.digits(),
        url="https://archive.ics.uci.edu/dataset/80",
        note="comes with scikit-learn",
    ),
    "imagenet": _Photographs(
        title="ImageNet",
        classes=1000,
        train=1_281_167,
        test=50_000,
        load=_large.imagenet,
        url="https://image-net.org",
        note="by hand, on request",
    ),
    "flowers": _Photographs(
        title="Oxford Flowers",
        classes=102,
        train=2_040,
        test=6_149,
        load=_large.flowers,
        url=f"{_OXFORD}/flowers/102",
        note="train and val (1,020 each) together",
    ),
    "pets": _Photographs(
        title="Oxford-IIIT Pets",
        classes=37,
        train=3_680,
        test=3_669,
        load=_large.pets,
        url=f"{_OXFORD}/pets",
    ),
    "food101": _Photographs(
        title="Food-101",
        classes=101,
        train=75_750,
        test=25_250,
        load=_large.food101,
        url="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
    ),
    "cars": _Photographs(
        title="Stanford Cars",
        classes=196,
        train=8_144,
        test=8_041,
        load=_large.cars,
        url="https://github.com/pytorch/vision/issues/7545#issuecomment-1631441616",
        note="by hand; the authors offer it for download no more",
    ),
    "aircraft": _Photographs(
        title="FGVC-Aircraft",
        classes=100,
        train=6_667,
        test=3_333,
        load=_large.aircraft,
        url=f"{_OXFORD}/fgvc-aircraft",
        note="train (3,334) and val (3,333) together",
    ),
    "birdsnap": _Photographs(
        title="Birdsnap",
        classes=500,
        train=47_386,
        test=2_443,
        load=birdsnap,
        url="https://thomasberg.org",
        complete=False,
        note="by hand, from Flickr, which has lost some images",
    ),
    "etth1": Source(
        title="ETTh1",
        classes=0,
        channels=7,
        size=None,
        train=8_640,
        test=2_880,
        large=False,
        load=_series.etth1,
        url="https://github.com/zhouhaoyi/ETDataset",
        note="a series of 7 channels, hour by hour; 12 months of 30 days to train on, "
        "4 for validation, 4 for the test",
        kind="series",
        validation=2_880,
    ),
    "sst2": Source(
        title="SST-2",
        classes=2,
        channels=0,
        size=None,
        train=6_920,
        test=1_821,
        large=False,
        load=_text.sst2,
        url="https://nlp.stanford.edu/sentiment",
        note="sentences of film reviews, negative or positive; the word pieces are "
        "those of BERT's vocabulary without capitals",
        kind="sentences",
        validation=872,
    ),
}


def load(name: str, root: Path, image_size: int | None = None) -> DataSet:
    """Read a data set; if possible, download it to ``root / name`` if it is not there.

    Args:
        name: a key of `SETS`, or the path of an image folder: ``FOLDER/CLASS/*``, of
            which a fifth of each class becomes the test set, or
            ``FOLDER/train/CLASS/*`` and ``FOLDER/test/CLASS/*``. The images of
            ``FOLDER/val/CLASS/*`` are for the choice of settings, or the test set of a
            folder without ``test``.
        root: where data sets are. Image folders are elsewhere; their decoded images
            are kept in ``root / ".cache"`` until one of them changes.
        image_size: side to which images in memory are brought; None for their own.
            Images of a folder are in memory if this side, or that of most images, is at
            most 64. Images that are read from files keep their size.

    Raises:
        BadInput: there is no such data set, or its files are missing, damaged or
            incomplete; the message says which and where they belong.

    Example:
        >>> from pathlib import Path
        >>> from flatmin.experiments.datasets import load
        >>> load("digits", Path("data")).train.x.shape
        torch.Size([900, 1, 8, 8])
    """
    if name in SETS:
        source, policy = SETS[name], SETS[name].policy
        parts = _from(source, root / name)
    else:
        parts = image_folder(_path(name), image_size, root / ".cache")
        policy = "cifar10" if isinstance(parts.train, Tensors) else "imagenet"
    train, test = (_sized(split, image_size) for split in parts[:2])
    return data_set(name, parts._replace(train=train, test=test), policy)


def _from(source: Source, folder: Path) -> Parts:
    parts = source.load(folder)
    for kind, split, count in (
        ("training", parts.train, source.train),
        ("test", parts.test, source.test),
    ):
        if source.complete and len(split.y) != count:
            raise BadInput(
                f"{folder} has {len(split.y):,} {kind} {source.kind}, and "
                f"{source.title} has {count:,}. Remove what is incomplete and start "
                "again."
            )
    return parts


def _path(name: str) -> Path:
    path = expanded(name)
    if path.is_dir():
        return path
    if len(path.parts) > 1:
        raise BadInput(f"no such folder: {path}")
    raise BadInput(unknown("data set, and no folder:", name, SETS))


def _sized(split: Split, size: int | None) -> Split:
    if not isinstance(split, Tensors) or size is None:
        return split
    if split.x.shape[2:] == (size, size):
        return split
    from torchvision.transforms.v2.functional import resize

    # In parts, because resizing takes several times the images' memory.
    parts = [resize(part, [size, size], antialias=True) for part in split.x.split(4096)]
    return Tensors(torch.cat(parts), split.y)

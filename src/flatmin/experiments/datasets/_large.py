"""Data sets of photographs, opened one by one.

torchvision reads the lists of all but Birdsnap, for which it has no reader.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from flatmin.experiments.datasets._fetch import (
    Remote,
    check,
    fetch,
    reading,
    require,
)
from flatmin.experiments.datasets._types import Files, ImageFiles, Parts
from flatmin.experiments.errors import BadInput

_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"

_BIRDSNAP = "https://thomasberg.org/datasets/birdsnap/1.1/birdsnap.tgz"
_BIRD_LISTS = ("species.txt", "images.txt", "test_images.txt")
_BIRD_IMAGES = "download/images"
_BIRDS_BY_HAND = (
    f"Unpack {_BIRDSNAP} there and run its get_birdsnap.py, which downloads the images "
    "from Flickr."
)


def imagenet(folder: Path) -> Parts:
    """Read ImageNet 2012, put there by hand; unpack its archives if need be."""
    from torchvision.datasets import ImageNet
    from torchvision.datasets.imagenet import load_meta_file

    archives = {
        "meta.bin": "ILSVRC2012_devkit_t12.tar.gz",
        "train": "ILSVRC2012_img_train.tar",
        "val": "ILSVRC2012_img_val.tar",
    }
    there = [n if (folder / n).exists() else a for n, a in archives.items()]
    require("ImageNet", there, folder, "They are at https://image-net.org, on request.")
    if (folder / "meta.bin").exists():
        with reading(folder / "meta.bin"):
            load_meta_file(folder)
    with reading(folder):
        train, val = (ImageNet(folder, split) for split in ("train", "val"))
    if train.wnids != val.wnids:
        raise BadInput(f"{folder}/train and {folder}/val do not have the same classes.")
    classes = tuple(", ".join(names) for names in train.classes)
    split = f"the {len(val):,} official validation images"
    trained, tested = (_files(folder, part.samples) for part in (train, val))
    return Parts(trained, tested, classes, split)


def flowers(folder: Path) -> Parts:
    """Read Oxford Flowers 102; train and val are trained on."""
    from torchvision.datasets import Flowers102

    class Checked(Flowers102):
        # `fetch` has compared the checksums, except those of made-up files.
        def _check_integrity(self) -> bool:
            return True

    place = f"{_OXFORD}/flowers/102/"
    names = Flowers102._file_dict
    files = [Remote(place + names[key][0], names[key][1]) for key in ("label", "setid")]
    archive = Remote(place + names["image"][0], names["image"][1], "jpg")
    fetch("Oxford Flowers", [archive, *files], folder, "flowers-102")
    base = folder / "flowers-102"
    for file in files:
        check(base / file.name, None)
    with reading(base / "setid.mat"):
        train, val, test = (
            _pairs(Checked(folder, split, loader=str))
            for split in ("train", "val", "test")
        )
    split = f"the {len(test):,} official test images; train and val are trained on"
    classes = tuple(Flowers102.classes)
    return Parts(_listed(base, train + val), _listed(base, test), classes, split)


def pets(folder: Path) -> Parts:
    """Read Oxford-IIIT Pets: 37 breeds."""
    from torchvision.datasets import OxfordIIITPet

    resources = OxfordIIITPet._RESOURCES
    held = ("images", "annotations")
    files = [Remote(*file, name) for file, name in zip(resources, held, strict=True)]
    fetch("Oxford-IIIT Pets", files, folder, "oxford-iiit-pet")
    base = folder / "oxford-iiit-pet"
    with reading(base / "annotations"):
        train, test = (OxfordIIITPet(folder, split) for split in ("trainval", "test"))
    pairs = [list(zip(p._images, p._labels, strict=True)) for p in (train, test)]
    return _official(base, pairs[0], pairs[1], train.classes)


def food101(folder: Path) -> Parts:
    """Read Food-101."""
    from torchvision.datasets import Food101

    fetch("Food-101", [Remote(Food101._URL, Food101._MD5, "food-101")], folder)
    base = folder / "food-101"
    with reading(base / "meta"):
        train, test = (Food101(folder, s, loader=str) for s in ("train", "test"))
    return _official(base, _pairs(train), _pairs(test), train.classes)


def cars(folder: Path) -> Parts:
    """Read Stanford Cars, put there by hand."""
    from torchvision.datasets import StanfordCars

    lists = (
        "devkit/cars_meta.mat",
        "devkit/cars_train_annos.mat",
        "cars_test_annos_withlabels.mat",
    )
    base = folder / "stanford_cars"
    how = "The data set is offered for download no more; put these there by hand."
    require("Stanford Cars", (*lists, "cars_train", "cars_test"), base, how)
    for name in lists:
        _mat(base / name)
    with reading(base):
        train, test = (StanfordCars(folder, s, loader=str) for s in ("train", "test"))
    return _official(base, _pairs(train), _pairs(test), train.classes)


def aircraft(folder: Path) -> Parts:
    """Read FGVC-Aircraft: 100 variants."""
    from torchvision.datasets import FGVCAircraft

    # torchvision has no checksum; gzip's own detects a broken archive.
    archive = Remote(FGVCAircraft._URL, None, "fgvc-aircraft-2013b")
    fetch("FGVC-Aircraft", [archive], folder)
    base = folder / "fgvc-aircraft-2013b"
    with reading(base / "data"):
        train, test = (
            FGVCAircraft(folder, s, loader=str) for s in ("trainval", "test")
        )
    return _official(base, _pairs(train), _pairs(test), train.classes)


def _mat(path: Path) -> None:
    from scipy.io import loadmat

    with reading(path):
        loadmat(path)


def _pairs(found: Any) -> list[tuple[str, int]]:
    """List path and label of each image of a data set whose loader returns the path."""
    return [found[i] for i in range(len(found))]


def _official(
    base: Path, train: Sequence[Any], test: Sequence[Any], classes: Iterable[str]
) -> Parts:
    split = f"the {len(test):,} official test images"
    return Parts(_listed(base, train), _listed(base, test), tuple(classes), split)


def _listed(root: Path, pairs: Sequence[tuple[str | Path, int]]) -> Files:
    """Return the images of a list, or refuse if one is missing."""
    for path, _ in pairs:
        if not Path(path).is_file():
            raise BadInput(f"no such file: {path}")
    return _files(root, pairs)


def _files(root: Path, pairs: Sequence[tuple[str | Path, int]]) -> Files:
    names = [os.path.relpath(path, root) for path, _ in pairs]
    y = torch.tensor([int(label) for _, label in pairs])
    return Files(ImageFiles(root, names, y), y)


def birdsnap(folder: Path) -> Parts:
    """Read 500 species of birds, without the images that Flickr no longer has."""
    require("Birdsnap", (*_BIRD_LISTS, _BIRD_IMAGES), folder, _BIRDS_BY_HAND)
    species, images, tests = (_table(folder / name) for name in _BIRD_LISTS)
    with reading(folder / "species.txt"):
        classes = {row["id"]: row["common"] for row in species}
    label = {key: i for i, key in enumerate(classes)}
    with reading(folder / "images.txt"):
        labels = {row["path"]: label[row["species_id"]] for row in images}
    with reading(folder / "test_images.txt"):
        tested = {row["path"] for row in tests}
    here = [path for path in labels if (folder / _BIRD_IMAGES / path).is_file()]
    train = _birds(folder, [path for path in here if path not in tested], labels)
    test = _birds(folder, [path for path in here if path in tested], labels)
    split = (
        f"the official list; {len(test.y):,} of its {len(tested):,} test images and "
        f"{len(here):,} of all {len(labels):,} are there"
    )
    return Parts(train, test, tuple(classes.values()), split)


def _table(path: Path) -> list[dict[str, str]]:
    with reading(path), path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _birds(folder: Path, paths: list[str], labels: dict[str, int]) -> Files:
    if not paths:
        raise BadInput(
            f"{folder / _BIRD_IMAGES} lacks the images of images.txt. {_BIRDS_BY_HAND}"
        )
    y = torch.tensor([labels[path] for path in paths])
    return Files(ImageFiles(folder / _BIRD_IMAGES, paths, y), y)

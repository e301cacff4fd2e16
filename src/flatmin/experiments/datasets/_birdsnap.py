"""Birdsnap, from the files of its authors' archive, which torchvision cannot read."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from flatmin.experiments.datasets._fetch import reading, require
from flatmin.experiments.datasets._types import Files, ImageFiles, Parts
from flatmin.experiments.errors import BadInput

_URL = "https://thomasberg.org/datasets/birdsnap/1.1/birdsnap.tgz"
_LISTS = ("species.txt", "images.txt", "test_images.txt")
_IMAGES = "download/images"
_HOW = (
    f"Unpack {_URL} there and run its get_birdsnap.py, which downloads the images from "
    "Flickr."
)


def birdsnap(folder: Path) -> Parts:
    """Read 500 species of birds, without the images that Flickr no longer has."""
    require("Birdsnap", (*_LISTS, _IMAGES), folder, _HOW)
    species, images, tests = (_table(folder / name) for name in _LISTS)
    with reading(folder / "species.txt"):
        classes = {row["id"]: row["common"] for row in species}
    label = {key: i for i, key in enumerate(classes)}
    with reading(folder / "images.txt"):
        labels = {row["path"]: label[row["species_id"]] for row in images}
    with reading(folder / "test_images.txt"):
        tested = {row["path"] for row in tests}
    here = [path for path in labels if (folder / _IMAGES / path).is_file()]
    train = _files(folder, [path for path in here if path not in tested], labels)
    test = _files(folder, [path for path in here if path in tested], labels)
    split = (
        f"the official list; {len(test.y):,} of its {len(tested):,} test images and "
        f"{len(here):,} of all {len(labels):,} are there"
    )
    return Parts(train, test, tuple(classes.values()), split)


def _table(path: Path) -> list[dict[str, str]]:
    with reading(path), path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _files(folder: Path, paths: list[str], labels: dict[str, int]) -> Files:
    if not paths:
        raise BadInput(f"{folder / _IMAGES} lacks the images of images.txt. {_HOW}")
    y = torch.tensor([labels[path] for path in paths])
    return Files(ImageFiles(folder / _IMAGES, paths, y), y)

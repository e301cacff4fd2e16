"""Made-up photographs with the lists of the real data sets, 6 classes each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tests.experiments.datasets.pictures import Pictures

_IMAGENET = {
    "n01440764": ("tench", "Tinca tinca"),
    "n01443537": ("goldfish", "Carassius auratus"),
    "n01498041": ("stingray",),
    "n01514668": ("cock",),
    "n01514859": ("hen",),
    "n01530575": ("brambling", "Fringilla montifringilla"),
}
_PETS = (
    "Abyssinian",
    "american_bulldog",
    "american_pit_bull_terrier",
    "basset_hound",
    "beagle",
    "Bengal",
)
_FOOD = (
    "apple_pie",
    "baby_back_ribs",
    "baklava",
    "beef_carpaccio",
    "beef_tartare",
    "beet_salad",
)
_CARS = (
    "AM General Hummer SUV 2000",
    "Acura RL Sedan 2012",
    "Acura TL Sedan 2012",
    "Acura TL Type-S 2008",
    "Acura TSX Sedan 2012",
    "Acura Integra Type R 2001",
)
_AIRCRAFT = ("707-320", "727-200", "737-200", "737-300", "737-400", "737-500")
_BIRDS = (
    "Cooper's Hawk",
    "Northern Goshawk",
    "Golden Eagle",
    "Bald Eagle",
    "Blue Jay",
    "Mallard",
)
_CLASSES = 6


def _numbered(pictures: Pictures) -> Iterator[tuple[str, int, int]]:
    """The split of each image, its number from 1, and its label."""
    test = max(1, pictures.per_class // 2)
    splits = ["train"] * pictures.per_class + ["test"] * test
    for i, split in enumerate(splits):
        for label in range(_CLASSES):
            yield split, i * _CLASSES + label + 1, label


def imagenet(folder: Path, pictures: Pictures) -> None:
    """``train/WNID/*.JPEG``, ``val/WNID/*.JPEG`` and torchvision's ``meta.bin``."""
    wnids, validated = list(_IMAGENET), list[str]()
    for split, number, label in _numbered(pictures):
        wnid = wnids[label]
        path = folder / "train" / wnid / f"{wnid}_{number}.JPEG"
        if split == "test":
            validated.append(wnid)
            path = folder / "val" / wnid / f"ILSVRC2012_val_{number:08}.JPEG"
        pictures.save(path, label)
    torch.save((_IMAGENET, validated), folder / "meta.bin")


def flowers(folder: Path, pictures: Pictures) -> None:
    """``jpg/image_00001.jpg``, labels and splits as MATLAB arrays."""
    from scipy.io import savemat

    base = folder / "flowers-102"
    ids: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    labels: list[int] = []
    for split, number, label in _numbered(pictures):
        kind = ("trnid", "valid")[number % 2] if split == "train" else "tstid"
        ids[kind].append(number)
        labels.append(label + 1)
        pictures.save(base / "jpg" / f"image_{number:05}.jpg", label)
    savemat(base / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    savemat(base / "setid.mat", {k: np.array([v], np.uint16) for k, v in ids.items()})


def pets(folder: Path, pictures: Pictures) -> None:
    """``images/BREED_1.jpg``, and lists of image, breed, species and number."""
    base = folder / "oxford-iiit-pet"
    lines: dict[str, list[str]] = {"trainval": [], "test": []}
    for split, number, label in _numbered(pictures):
        image, species = f"{_PETS[label]}_{number}", 1 + _PETS[label].islower()
        kind = "trainval" if split == "train" else "test"
        lines[kind].append(f"{image} {label + 1} {species} {label + 1}\n")
        pictures.save(base / "images" / f"{image}.jpg", label)
    (base / "annotations").mkdir()
    for kind, rows in lines.items():
        (base / "annotations" / f"{kind}.txt").write_text("".join(rows))


def food101(folder: Path, pictures: Pictures) -> None:
    """``images/CLASS/1.jpg``, and the images of each class in JSON."""
    base = folder / "food-101"
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for split, number, label in _numbered(pictures):
        image = f"{_FOOD[label]}/{number}"
        lists[split].setdefault(_FOOD[label], []).append(image)
        pictures.save(base / "images" / f"{image}.jpg", label)
    (base / "meta").mkdir()
    for split, images in lists.items():
        (base / "meta" / f"{split}.json").write_text(json.dumps(images))


def cars(folder: Path, pictures: Pictures) -> None:
    """``cars_train/00001.jpg``, and annotations as MATLAB structures."""
    from scipy.io import savemat

    base = folder / "stanford_cars"
    rows: dict[str, list[tuple[int | str, ...]]] = {"train": [], "test": []}
    for split, _, label in _numbered(pictures):
        file = f"{len(rows[split]) + 1:05}.jpg"
        rows[split].append((1, 1, 48, 48, label + 1, file))
        pictures.save(base / f"cars_{split}" / file, label)
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    kind = [(field, object) for field in fields]
    names = np.array([_CARS], object)
    (base / "devkit").mkdir()
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    for split, file in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        savemat(base / file, {"annotations": np.array([rows[split]], kind)})


def aircraft(folder: Path, pictures: Pictures) -> None:
    """``data/images/0000001.jpg``, and lists of image and variant."""
    base = folder / "fgvc-aircraft-2013b" / "data"
    lines: dict[str, list[str]] = {"trainval": [], "test": []}
    for split, number, label in _numbered(pictures):
        kind = "trainval" if split == "train" else "test"
        lines[kind].append(f"{number:07} {_AIRCRAFT[label]}\n")
        pictures.save(base / "images" / f"{number:07}.jpg", label)
    (base / "variants.txt").write_text("".join(f"{name}\n" for name in _AIRCRAFT))
    for kind, rows in lines.items():
        (base / f"images_variant_{kind}.txt").write_text("".join(rows))


def birdsnap(folder: Path, pictures: Pictures) -> None:
    """``download/images/SPECIES/1.jpg``, and tables with tabs."""
    folders = [name.replace("'", "").replace(" ", "_") for name in _BIRDS]
    images, tests = ["url\tmd5\tpath\tspecies_id"], ["path"]
    for split, number, label in _numbered(pictures):
        path = f"{folders[label]}/{number}.jpg"
        images.append(
            f"https://example.org/{number}.jpg\t{number:032x}\t{path}\t{label + 1}"
        )
        tests += [path] if split == "test" else []
        pictures.save(folder / "download" / "images" / path, label)
    species = ["id\tcommon\tscientific\tdir"]
    for label, (name, place) in enumerate(zip(_BIRDS, folders, strict=True)):
        species.append(f"{label + 1}\t{name}\t{name}\t{place}")
    for file, lines in (
        ("images.txt", images),
        ("test_images.txt", tests),
        ("species.txt", species),
    ):
        (folder / file).write_text("\n".join(lines) + "\n")

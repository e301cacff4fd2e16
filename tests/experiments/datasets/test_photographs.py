import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from flatmin.experiments.datasets import SETS, Files, ImageFiles, load
from flatmin.experiments.errors import BadInput
from tests.experiments.datasets.written import write_tiny

#: Of real files, counts and checksums are compared.
unpublished = pytest.mark.usefixtures("unpublished")


def _numbered(path: Path) -> int:
    return (int(re.sub(r"\D", "", path.stem)) - 1) % 6


def _listed(*names: str) -> Callable[[Path], int]:
    return lambda path: names.index(path.parent.name)


#: What an image shows, from its path.
LABEL: dict[str, Callable[[Path], int]] = {
    "imagenet": lambda path: sorted(p.name for p in path.parent.parent.iterdir()).index(
        path.parent.name
    ),
    "flowers": _numbered,
    "pets": lambda path: int(path.stem.rpartition("_")[2]) % 6 - 1,
    "food101": lambda path: sorted(p.name for p in path.parent.parent.iterdir()).index(
        path.parent.name
    ),
    "cars": _numbered,
    "aircraft": _numbered,
    "birdsnap": _listed(
        "Coopers_Hawk",
        "Northern_Goshawk",
        "Golden_Eagle",
        "Bald_Eagle",
        "Blue_Jay",
        "Mallard",
    ),
}


def images(split: object) -> ImageFiles:
    assert isinstance(split, Files)
    assert isinstance(split.images, ImageFiles)
    return split.images


def test_all_large_sets_are_here() -> None:
    assert {name for name, source in SETS.items() if source.large} == LABEL.keys()


@unpublished
@pytest.mark.parametrize("name", LABEL)
def test_every_image_comes_once_with_its_label(name: str, tmp_path: Path) -> None:
    write_tiny(name, tmp_path)
    data = load(name, tmp_path)
    seen: list[Path] = []
    for split, count in ((data.train, 24), (data.test, 12)):
        files = images(split)
        assert len(files) == len(split.y) == count
        assert split.y.dtype == torch.int64
        assert split.y.bincount().tolist() == [count // 6] * 6
        for i, path in enumerate(files.root / file for file in files.names):
            image, label = files[i]
            with Image.open(path) as expected:
                assert np.array_equal(np.asarray(image), np.asarray(expected))
            assert image.mode == "RGB"
            assert label == split.y[i] == LABEL[name](path) % 6
            seen.append(path)
    jpegs = {p for p in tmp_path.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")}
    assert len(seen) == len(set(seen)) == len(jpegs)
    assert set(seen) == jpegs
    assert data.mean == (0.485, 0.456, 0.406)


@unpublished
def test_classes_have_their_names(tmp_path: Path) -> None:
    for name in LABEL:
        write_tiny(name, tmp_path, per_class=1)
    classes = {name: load(name, tmp_path).classes for name in LABEL}
    assert classes.pop("flowers")[:2] == ("pink primrose", "hard-leaved pocket orchid")
    assert {name: names[1] for name, names in classes.items()} == {
        "imagenet": "goldfish, Carassius auratus",
        "pets": "American Bulldog",
        "food101": "baby_back_ribs",
        "cars": "Acura RL Sedan 2012",
        "aircraft": "727-200",
        "birdsnap": "Northern Goshawk",
    }
    assert {len(names) for names in classes.values()} == {6}


@unpublished
def test_train_and_val_of_flowers_are_trained_on(tmp_path: Path) -> None:
    from scipy.io import loadmat

    write_tiny("flowers", tmp_path)
    ids = loadmat(tmp_path / "flowers/flowers-102/setid.mat")
    named = [int(name[10:15]) for name in images(load("flowers", tmp_path).train).names]
    assert len(ids["trnid"][0]) == len(ids["valid"][0]) == 12
    assert named == [*ids["trnid"][0], *ids["valid"][0]]


@unpublished
def test_the_test_images_of_birdsnap_are_those_of_its_list(tmp_path: Path) -> None:
    write_tiny("birdsnap", tmp_path)
    folder = tmp_path / "birdsnap"
    (folder / "test_images.txt").write_text("path\nMallard/6.jpg\nBlue_Jay/5.jpg\n")
    data = load("birdsnap", tmp_path)
    assert images(data.test).names == ("Blue_Jay/5.jpg", "Mallard/6.jpg")
    assert data.test.y.tolist() == [4, 5]
    assert len(data.train.y) == 34


@unpublished
def test_images_that_flickr_lost_are_left_out_and_counted(tmp_path: Path) -> None:
    write_tiny("birdsnap", tmp_path)
    folder = tmp_path / "birdsnap"
    (folder / "download/images/Mallard/6.jpg").unlink()
    (folder / "download/images/Mallard/36.jpg").unlink()
    data = load("birdsnap", tmp_path)
    assert (len(data.train.y), len(data.test.y)) == (23, 11)
    assert "11 of its 12 test images and 34 of all 36 are there" in data.split


@unpublished
def test_the_digest_sees_labels_names_and_sizes(tmp_path: Path) -> None:
    write_tiny("pets", tmp_path)
    data = load("pets", tmp_path)
    train, before = data.train, data.digest()
    assert isinstance(train, Files)
    y = train.y.roll(1)
    noisy = dataclasses.replace(data, train=dataclasses.replace(train, y=y))
    assert noisy.digest() != before
    path = images(train).root / images(train).names[0]
    path.write_bytes(path.read_bytes() + b"\0")
    assert load("pets", tmp_path).digest() not in (before, noisy.digest())


@unpublished
def test_the_digest_sees_another_picture_of_the_same_size(tmp_path: Path) -> None:
    write_tiny("pets", tmp_path)
    data = load("pets", tmp_path)
    before, files = data.digest(), images(data.train)
    path = files.root / files.names[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert data.digest() != before
    path.unlink()
    with pytest.raises(BadInput, match="not a readable image"):
        data.digest()


@unpublished
def test_processes_of_a_loader_read_images(tmp_path: Path) -> None:
    write_tiny("pets", tmp_path, per_class=1)
    data = load("pets", tmp_path)
    batches = DataLoader(
        images(data.train), batch_size=2, num_workers=1, collate_fn=lambda pairs: pairs
    )
    labels = [label for batch in batches for _, label in batch]
    assert labels == data.train.y.tolist()


@unpublished
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_tiny("pets", tmp_path)
    files = images(load("pets", tmp_path).train)
    path = files.root / files.names[3]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match=re.escape(str(path))):
        files[3]


@unpublished
@pytest.mark.parametrize("name", ["flowers", "pets", "food101", "cars", "aircraft"])
def test_an_image_of_a_list_that_is_absent_is_named(name: str, tmp_path: Path) -> None:
    write_tiny(name, tmp_path)
    files = images(load(name, tmp_path).test)
    path = files.root / files.names[3]
    path.unlink()
    with pytest.raises(BadInput, match=re.escape(f"no such file: {path}")):
        load(name, tmp_path)


@unpublished
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("imagenet", "meta.bin"),
        ("flowers", "flowers-102/setid.mat"),
        ("pets", "oxford-iiit-pet/annotations"),
        ("food101", "food-101/meta"),
        ("cars", "stanford_cars/devkit/cars_train_annos.mat"),
        ("cars", "stanford_cars/devkit/cars_meta.mat"),
        ("aircraft", "fgvc-aircraft-2013b/data"),
        ("birdsnap", "images.txt"),
    ],
)
def test_a_damaged_list_is_named(name: str, file: str, tmp_path: Path) -> None:
    write_tiny(name, tmp_path)
    path = tmp_path / name / file
    lists = [path] if path.is_file() else [p for p in path.iterdir() if p.is_file()]
    for each in lists:
        each.write_bytes(each.read_bytes()[:15] + b"\xff\xfe")
    with pytest.raises(BadInput, match=rf"{re.escape(str(path))}(:| is).*damaged"):
        load(name, tmp_path)


@unpublished
@pytest.mark.parametrize(
    ("name", "removed", "message"),
    [
        ("imagenet", "meta.bin", "lacks ILSVRC2012_devkit_t12.tar.gz"),
        ("cars", "stanford_cars/devkit/cars_meta.mat", "lacks devkit/cars_meta.mat"),
        ("birdsnap", "test_images.txt", "lacks test_images.txt.*get_birdsnap.py"),
    ],
)
def test_what_has_to_be_put_there_by_hand_is_named(
    name: str, removed: str, message: str, tmp_path: Path
) -> None:
    write_tiny(name, tmp_path)
    (tmp_path / name / removed).unlink()
    with pytest.raises(BadInput, match=message):
        load(name, tmp_path)


def test_real_photographs_must_be_all_there(tmp_path: Path) -> None:
    write_tiny("imagenet", tmp_path)
    with pytest.raises(BadInput, match="has 24 training images, and ImageNet has 1,28"):
        load("imagenet", tmp_path)


@unpublished
def test_an_archive_of_imagenet_that_is_another_is_refused(tmp_path: Path) -> None:
    write_tiny("imagenet", tmp_path)
    folder = tmp_path / "imagenet"
    (folder / "meta.bin").unlink()
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"no archive")
    with pytest.raises(BadInput, match=r"devkit_t12\.tar\.gz is not present"):
        load("imagenet", tmp_path)

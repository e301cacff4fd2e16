import dataclasses
import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.io import loadmat

from flatmin.experiments.datasets import SETS, DataSet, Tensors, load
from flatmin.experiments.errors import BadInput
from tests.experiments.datasets.pictures import Pictures
from tests.experiments.datasets.written import write_tiny

pytestmark = pytest.mark.usefixtures("unpublished")

SMALL = {"cifar10": 10, "cifar100": 100, "svhn": 10, "fashion-mnist": 10}


def tiny(name: str, root: Path, per_class: int = 4) -> DataSet:
    write_tiny(name, root, per_class)
    return load(name, root)


def pixels(split: object) -> torch.Tensor:
    assert isinstance(split, Tensors)
    return split.x


def chw(x: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def test_cifar_comes_back_as_it_was_written(tmp_path: Path) -> None:
    data = tiny("cifar10", tmp_path)
    pictures = Pictures(4, seed=0)
    (x, y), (test_x, test_y) = pictures.train(10, 32, 3), pictures.test(10, 32, 3)
    order = np.concatenate([np.arange(k, 40, 5) for k in range(5)])
    assert torch.equal(pixels(data.train), chw(x[order]))
    assert torch.equal(data.train.y, torch.from_numpy(y[order]))
    assert torch.equal(pixels(data.test), chw(test_x))
    assert torch.equal(data.test.y, torch.from_numpy(test_y))
    assert data.classes[::9] == ("airplane", "truck")


def test_fine_labels_of_cifar100_are_read(tmp_path: Path) -> None:
    data = tiny("cifar100", tmp_path)
    x, y = Pictures(4, seed=0).train(100, 32, 3)
    assert torch.equal(pixels(data.train), chw(x))
    assert torch.equal(data.train.y, torch.from_numpy(y))
    assert data.train.y.unique().tolist() == list(range(100))
    assert data.classes[::99] == ("apple", "worm")


def test_fashion_mnist_has_one_channel(tmp_path: Path) -> None:
    data = tiny("fashion-mnist", tmp_path)
    x, y = Pictures(4, seed=0).train(10, 28, 1)
    assert torch.equal(pixels(data.train), chw(x))
    assert torch.equal(data.train.y, torch.from_numpy(y))
    assert data.classes[0] == "T-shirt/top"


def test_svhn_is_train_and_extra_and_its_label_10_is_0(tmp_path: Path) -> None:
    data = tiny("svhn", tmp_path)
    train, extra = (
        loadmat(tmp_path / "svhn" / f"{split}_32x32.mat")
        for split in ("train", "extra")
    )
    x = np.concatenate([train["X"], extra["X"]], -1).transpose(3, 2, 0, 1)
    y = np.concatenate([train["y"], extra["y"]])[:, 0]
    assert set(y) == set(range(1, 11))
    assert torch.equal(pixels(data.train), torch.from_numpy(x.copy()))
    assert data.train.y.tolist() == [label % 10 for label in y.tolist()]
    assert len(data.test.y) == 20
    assert data.train.y.dtype == torch.int64


def test_digits_are_the_whole_range_of_bytes(tmp_path: Path) -> None:
    data = load("digits", tmp_path)
    assert pixels(data.train).shape == (900, 1, 8, 8)
    assert len(data.test.y) == 897
    assert pixels(data.train).max() == 240


@pytest.mark.parametrize("name", SMALL)
def test_a_data_set_in_memory_is_what_its_entry_says(name: str, tmp_path: Path) -> None:
    data, source = tiny(name, tmp_path), SETS[name]
    x = pixels(data.train)
    assert x.is_contiguous()
    assert x.dtype == torch.uint8
    assert x.shape[1:] == (source.channels, source.size, source.size)
    assert len(data.classes) == source.classes == SMALL[name]
    assert not source.large
    assert data.policy == source.policy


def test_the_documentation_has_the_counts_of_every_data_set() -> None:
    page = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
    rows = {row.split("`")[1]: row for row in page.splitlines() if row[:3] == "| `"}
    table = page.partition("## Downloads")[0]
    for name, source in SETS.items():
        row = next(r for r in table.splitlines() if r.startswith(f"| `{name}`"))
        first = source.classes or source.channels
        assert f"| {first} | {source.train:,} | {source.test:,} |" in row
    assert rows.keys() == SETS.keys()


def test_mean_and_deviation_are_those_of_the_training_images(tmp_path: Path) -> None:
    data = tiny("cifar10", tmp_path)
    x = pixels(data.train).double() / 255
    torch.testing.assert_close(torch.tensor(data.mean).double(), x.mean((0, 2, 3)))
    std = x.std((0, 2, 3), correction=0)
    torch.testing.assert_close(torch.tensor(data.std).double(), std)


def test_images_in_memory_are_resized_on_demand(tmp_path: Path) -> None:
    write_tiny("fashion-mnist", tmp_path)
    data = load("fashion-mnist", tmp_path, image_size=12)
    assert pixels(data.train).shape == (40, 1, 12, 12)
    assert pixels(data.test).shape == (20, 1, 12, 12)


def test_the_digest_sees_one_pixel_and_one_label(tmp_path: Path) -> None:
    data = tiny("cifar10", tmp_path)
    train = data.train
    assert isinstance(train, Tensors)
    x, y = train.x.clone(), train.y.clone()
    x[3, 1, 4, 1] ^= 1
    y[5] += 1
    changed = [
        dataclasses.replace(data, train=dataclasses.replace(train, **new))
        for new in ({"x": x}, {"y": y})
    ]
    assert len({data.digest(), *(other.digest() for other in changed)}) == 3
    assert load("cifar10", tmp_path).digest() == data.digest()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifr10", "did you mean 'cifar10'"),
        ("xyz", "known: cifar10, cifar100"),
        ("no/such/folder", "no such folder: no/such/folder"),
    ],
)
def test_an_unknown_name_is_answered(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        load(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_3"),
        ("cifar100", "cifar-100-python/meta"),
        ("svhn", "extra_32x32.mat"),
        ("fashion-mnist", "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz"),
    ],
)
def test_a_file_that_is_cut_short_is_named(
    name: str, file: str, tmp_path: Path
) -> None:
    write_tiny(name, tmp_path)
    path = tmp_path / name / file
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInput, match=re.escape(f"{path} is damaged")):
        load(name, tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_file_that_an_archive_held_and_is_missing_is_named(
    name: str, tmp_path: Path
) -> None:
    write_tiny(name, tmp_path)
    (path,) = (tmp_path / name).glob("*/*meta")
    path.unlink()
    with pytest.raises(BadInput, match=re.escape(f"no such file: {path}")):
        load(name, tmp_path)


def test_an_idx_file_of_another_shape_is_damaged(tmp_path: Path) -> None:
    write_tiny("fashion-mnist", tmp_path)
    raw = tmp_path / "fashion-mnist" / "FashionMNIST" / "raw"
    path = raw / "train-images-idx3-ubyte.gz"
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[2] = 9
    path.write_bytes(gzip.compress(data))
    with pytest.raises(BadInput, match="no idx file of bytes"):
        load("fashion-mnist", tmp_path)


def test_the_digest_sees_the_validation_images(tmp_path: Path) -> None:
    data = tiny("cifar10", tmp_path)
    held = dataclasses.replace(data, validation=data.test)
    assert isinstance(data.test, Tensors)
    y = data.test.y.clone()
    y[2] += 1
    other = dataclasses.replace(data.test, y=y)
    changed = dataclasses.replace(data, validation=other)
    assert len({one.digest() for one in (data, held, changed)}) == 3

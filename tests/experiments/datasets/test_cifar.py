"""CIFAR's pickles: read, and never executed."""

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from flatmin.experiments.datasets import load
from flatmin.experiments.datasets._cifar import unpickled
from flatmin.experiments.errors import BadInput
from tests.experiments.datasets.written import write_tiny

BATCH = "cifar10/cifar-10-batches-py/data_batch_1"


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.usefixtures("unpublished")
def test_torchvision_reads_the_same_from_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny("cifar10", tmp_path)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    theirs = CIFAR10(tmp_path / "cifar10")
    ours = load("cifar10", tmp_path).train
    assert [label for _, label in theirs] == ours.y.tolist()
    assert np.array_equal(theirs.data.transpose(0, 3, 1, 2), ours.x.numpy())  # type: ignore[union-attr]


@pytest.mark.usefixtures("unpublished")
@pytest.mark.parametrize("protocol", range(5))
def test_a_pickle_that_would_run_something_is_refused(
    protocol: int, tmp_path: Path
) -> None:
    write_tiny("cifar10", tmp_path)
    trap = {"data": Payload(tmp_path / "executed"), "labels": [0]}
    (tmp_path / BATCH).write_bytes(pickle.dumps(trap, protocol))
    with pytest.raises(BadInput, match=r"data_batch_1 is damaged .*asks for \S+mkdir"):
        load("cifar10", tmp_path)
    assert not (tmp_path / "executed").exists()
    pickle.loads((tmp_path / BATCH).read_bytes())
    assert (tmp_path / "executed").is_dir()


def test_a_real_folder_is_read_only_with_the_published_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny("cifar10", tmp_path)
    monkeypatch.setattr(pickle, "Unpickler", None)
    with pytest.raises(BadInput, match=r"data_batch_1 .*MD5 checksum is not c99cafc1"):
        load("cifar10", tmp_path)


def test_a_real_folder_with_few_images_is_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny("cifar10", tmp_path)
    base = tmp_path / "cifar10" / "cifar-10-batches-py"

    def md5(name: str) -> str:
        return hashlib.md5((base / name).read_bytes()).hexdigest()

    for field in ("train_list", "test_list"):
        names = [[name, md5(name)] for name, _ in getattr(CIFAR10, field)]
        monkeypatch.setattr(CIFAR10, field, names)
    monkeypatch.setitem(CIFAR10.meta, "md5", md5("batches.meta"))
    with pytest.raises(BadInput, match="has 40 training images, and CIFAR-10 has 50,0"):
        load("cifar10", tmp_path)


def test_arrays_pickled_by_any_numpy_are_read(tmp_path: Path) -> None:
    write_tiny("cifar10", tmp_path)
    path, old = tmp_path / BATCH, tmp_path / "old"
    data = path.read_bytes()
    assert b"numpy._core.multiarray" in data
    old.write_bytes(data.replace(b"numpy._core.multi", b"numpy.core.multi"))
    assert np.array_equal(unpickled(old)["data"], unpickled(path)["data"])


@pytest.mark.usefixtures("unpublished")
@pytest.mark.parametrize(
    "value",
    [
        [1, 2],
        {"labels": [1]},
        {"data": [1, 2], "labels": [1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1]},
        {"data": np.zeros((1, 3072), np.int64), "labels": [1]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": [0.5]},
    ],
)
def test_a_pickle_of_something_else_is_damaged(value: object, tmp_path: Path) -> None:
    write_tiny("cifar10", tmp_path)
    (tmp_path / BATCH).write_bytes(pickle.dumps(value, 3))
    with pytest.raises(BadInput, match="data_batch_1 is damaged"):
        load("cifar10", tmp_path)

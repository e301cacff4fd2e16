from pathlib import Path

import pytest
import torch
from PIL import Image

from flatmin.experiments.config import Comparison
from flatmin.experiments.data import load as load_for_comparison
from flatmin.experiments.datasets import Files, ImageFiles, Tensors, load
from flatmin.experiments.errors import BadInput
from tests.experiments.helpers import image_folder


def test_small_images_lie_in_memory(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"cat": 5, "dog": 4}, size=20)
    image_folder(tmp_path / "test", {"cat": 2, "dog": 3}, size=20)
    data = load(str(tmp_path), tmp_path)
    assert isinstance(data.train, Tensors)
    assert data.train.x.shape == (9, 3, 20, 20)
    assert data.test.y.tolist() == [0, 0, 1, 1, 1]
    assert data.classes == ("cat", "dog")
    assert data.policy == "cifar10"


def test_an_image_of_the_size_is_taken_pixel_by_pixel(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 5, "b": 5}, size=16)
    exact = Image.effect_noise((16, 16), 90).convert("RGB")
    for folder in ("a", "b"):
        for path in (tmp_path / folder).iterdir():
            exact.save(path)
    data = load(str(tmp_path), tmp_path, image_size=16)
    assert isinstance(data.train, Tensors)
    expected = torch.tensor(list(exact.tobytes())).view(16, 16, 3).permute(2, 0, 1)
    assert torch.equal(data.train.x.long(), expected.expand(8, 3, 16, 16))


def test_large_images_stay_where_they_are(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 5, "b": 10}, size=70)
    data = load(str(tmp_path), tmp_path)
    assert isinstance(data.train, Files)
    assert isinstance(data.train.images, ImageFiles)
    assert data.train.images[0][0].size == (73, 70)
    assert data.train.y.bincount().tolist() == [4, 8]
    assert data.policy == "imagenet"


def test_the_size_that_is_asked_for_decides(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 5, "b": 5}, size=70)
    small, large = (load(str(tmp_path), tmp_path, size) for size in (64, 65))
    assert isinstance(small.train, Tensors)
    assert small.train.x.shape == (8, 3, 64, 64)
    assert isinstance(large.train, Files)


def test_a_comparison_trains_on_the_same_images(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 10, "b": 20}, size=30)
    data = load(str(tmp_path), tmp_path, image_size=12)
    theirs = load_for_comparison(Comparison(data=str(tmp_path), image_size=12))
    assert theirs.digest() == data.digest()
    assert (theirs.mean, theirs.std) == (data.mean, data.std)


def test_a_comparison_has_images_of_any_size_in_memory(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 4, "b": 4}, size=70)
    config = Comparison(data=str(tmp_path), image_size=66, test_share=0.5)
    data = load_for_comparison(config)
    assert isinstance(data.train, Tensors)
    assert data.train.x.shape == (4, 3, 66, 66)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no images in"):
        load(str(tmp_path), tmp_path)

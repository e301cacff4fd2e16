import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from flatmin.experiments.config import Comparison
from flatmin.experiments.data import load, shape
from flatmin.experiments.datasets import Tensors
from flatmin.experiments.errors import BadInput
from tests.experiments.helpers import image_folder
from tests.experiments.loop.problems import standard


def test_digits_are_all_there_and_split_once() -> None:
    data = load(Comparison())
    assert isinstance(data.train, Tensors)
    assert isinstance(data.test, Tensors)
    rows = torch.cat([data.train.x, data.test.x]).flatten(1)
    assert data.train.x.shape == (900, 1, 8, 8)
    assert data.test.x.shape == (897, 1, 8, 8)
    assert shape(data) == (1, 8, 8)
    assert len(torch.unique(rows, dim=0)) == 1797
    assert load(Comparison()).digest() == data.digest()


def test_training_images_are_standardised() -> None:
    data = load(Comparison())
    assert isinstance(data.train, Tensors)
    x = standard(data.train.x, data)
    torch.testing.assert_close(x.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(), torch.tensor(1.0))


def test_a_folder_with_train_and_test_is_taken_as_it_is(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"cat": 5, "dog": 4})
    image_folder(tmp_path / "test", {"cat": 2, "dog": 3})
    data = load(Comparison(data=str(tmp_path), image_size=8))
    assert shape(data) == (3, 8, 8)
    assert data.train.y.bincount().tolist() == [5, 4]
    assert data.test.y.bincount().tolist() == [2, 3]
    assert data.classes == ("cat", "dog")
    assert "own train and test" in data.split


def test_a_flat_folder_is_split_class_by_class(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 10, "b": 20, "c": 5})
    data = load(Comparison(data=str(tmp_path), test_share=0.2))
    assert data.test.y.bincount().tolist() == [2, 4, 1]
    assert data.train.y.bincount().tolist() == [8, 16, 4]
    assert "20%" in data.split
    assert load(Comparison(data=str(tmp_path))).digest() == data.digest()


def test_pictures_of_any_mode_and_shape_become_rgb_of_one_size(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 3, "b": 3})
    Image.new("L", (40, 9), 128).save(tmp_path / "a" / "grey.png")
    Image.new("RGBA", (9, 40)).save(tmp_path / "a" / "alpha.png")
    Image.new("P", (17, 17)).save(tmp_path / "b" / "palette.gif")
    Image.new("CMYK", (17, 17)).save(tmp_path / "b" / "print.jpg")
    data = load(Comparison(data=str(tmp_path), image_size=16))
    assert shape(data) == (3, 16, 16)
    assert len(data.train.y) + len(data.test.y) == 10


def test_a_changed_pixel_changes_the_digest(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 3, "b": 3})
    config = Comparison(data=str(tmp_path), image_size=12)
    before = load(config).digest()
    with Image.open(tmp_path / "a" / "0.png") as picture:
        changed = picture.copy()
    changed.putpixel((5, 5), (255, 255, 255))
    changed.save(tmp_path / "a" / "0.png")
    assert load(config).digest() != before


def _missing(root: Path) -> None:
    del root


def _empty(root: Path) -> None:
    root.mkdir()


def _empty_classes(root: Path) -> None:
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()


def _one_class(root: Path) -> None:
    image_folder(root, {"only": 4})


def _text(root: Path) -> None:
    image_folder(root, {"a": 3, "b": 3})
    (root / "a" / "note.jpg").write_text("this is no picture")


def _cut_short(root: Path) -> None:
    image_folder(root, {"a": 3, "b": 3}, size=60)
    whole = (root / "b" / "1.png").read_bytes()
    (root / "b" / "1.png").write_bytes(whole[: len(whole) // 2])


def _strange_test_class(root: Path) -> None:
    image_folder(root / "train", {"a": 3, "b": 3})
    image_folder(root / "test", {"a": 3, "c": 3})


def _single_images(root: Path) -> None:
    image_folder(root, {"a": 1, "b": 1})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_missing, "no such folder: .*data"),
        (_empty, r"no images in .*one folder per class"),
        (_empty_classes, "no images in"),
        (_one_class, "only one class in .*'only'"),
        (_text, r"not a readable image: .*note\.jpg"),
        (_cut_short, r"not a readable image: .*1\.png"),
        (_strange_test_class, "classes that train lacks: c"),
        (_single_images, "too few images to split: 2"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(
    make: object, message: str, tmp_path: Path
) -> None:
    assert callable(make)
    root = tmp_path / "data"
    make(root)
    with pytest.raises(BadInput) as refused:
        load(Comparison(data=str(root)))
    assert re.search(message, str(refused.value)), str(refused.value)

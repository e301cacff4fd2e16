from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

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


def test_a_folder_with_train_and_test_is_taken_as_it_is(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"cat": 5, "dog": 4})
    image_folder(tmp_path / "test", {"cat": 2, "dog": 3})
    data = load(str(tmp_path), tmp_path, image_size=8)
    assert data.train.y.bincount().tolist() == [5, 4]
    assert data.test.y.bincount().tolist() == [2, 3]
    assert data.classes == ("cat", "dog")
    assert "own train and test" in data.split


def test_a_flat_folder_is_split_class_by_class(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 10, "b": 20, "c": 5})
    data = load(str(tmp_path), tmp_path)
    assert data.test.y.bincount().tolist() == [2, 4, 1]
    assert data.train.y.bincount().tolist() == [8, 16, 4]
    assert "20%" in data.split
    assert load(str(tmp_path), tmp_path).digest() == data.digest()


def test_pictures_of_any_mode_and_shape_become_rgb_of_one_size(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 3, "b": 3})
    Image.new("L", (40, 9), 128).save(tmp_path / "a" / "grey.png")
    Image.new("RGBA", (9, 40)).save(tmp_path / "a" / "alpha.png")
    Image.new("P", (17, 17)).save(tmp_path / "b" / "palette.gif")
    Image.new("CMYK", (17, 17)).save(tmp_path / "b" / "print.jpg")
    data = load(str(tmp_path), tmp_path, image_size=16)
    assert isinstance(data.train, Tensors)
    assert data.train.x.shape[1:] == (3, 16, 16)
    assert len(data.train.y) + len(data.test.y) == 10


def test_a_changed_pixel_changes_the_digest(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 3, "b": 3})
    before = load(str(tmp_path), tmp_path / "data", 12).digest()
    with Image.open(tmp_path / "a" / "0.png") as picture:
        changed = picture.copy()
    changed.putpixel((5, 5), (255, 255, 255))
    changed.save(tmp_path / "a" / "0.png")
    assert load(str(tmp_path), tmp_path / "data", 12).digest() != before


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
        (_missing, "no such folder: .*photos"),
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
    make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    root = tmp_path / "photos"
    make(root)
    with pytest.raises(BadInput, match=message):
        load(str(root), tmp_path)

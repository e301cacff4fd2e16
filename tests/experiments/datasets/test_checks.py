"""What is said about an image folder before training."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flatmin.experiments.datasets import findings, load, shared
from tests.experiments.helpers import image_folder


def said(root: Path) -> list[str]:
    return findings(load(str(root), root.parent))


def photos(root: Path, *parts: str) -> Path:
    """Different images in every part."""
    random = np.random.default_rng(0)
    for part in parts:
        image_folder(root / part, {"ants": 5, "bees": 5})
        for path in (root / part).glob("*/*"):
            pixels = random.integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(path)
    return root


def test_of_a_clean_folder_nothing_is_said(tmp_path: Path) -> None:
    assert said(photos(tmp_path / "a", "train", "val", "test")) == []
    assert said(photos(tmp_path / "b", "")) == []


def test_of_a_published_set_nothing_is_said(tmp_path: Path) -> None:
    assert findings(load("digits", tmp_path)) == []


def test_files_that_are_no_images_are_counted(tmp_path: Path) -> None:
    root = photos(tmp_path / "a", "train", "test")
    for name in ("train/ants/a.heic", "test/bees/b.avif", "train/ants/.hidden"):
        (root / name).write_text("not read")
    (sentence,) = said(root)
    assert sentence.startswith(
        "Files that are no images by their names are left out: 2, such as "
        "'test/bees/b.avif'. Images are called .jpg, .jpeg, "
    )


def test_unequal_classes_are_counted(tmp_path: Path) -> None:
    root = photos(tmp_path / "a", "train", "test")
    for i in range(10):
        Image.new("RGB", (12, 12), (i, 0, 0)).save(root / f"train/bees/more{i}.png")
    assert said(root) == [
        "Classes are unequal: from 5 training images (ants) to 15 (bees), 3.0 times as "
        "many. Always answering bees would be right for 75% of them."
    ]


def test_a_class_with_a_single_image_is_counted_in_the_singular(tmp_path: Path) -> None:
    root = photos(tmp_path / "a", "train", "test")
    for i in range(1, 5):
        (root / f"train/ants/{i}.png").unlink()
    (sentence,) = said(root)
    assert "from 1 training image (ants) to 5 (bees), 5.0 times" in sentence


def copy(root: Path, source: str, target: str) -> None:
    (root / target).write_bytes((root / source).read_bytes())


def test_test_images_that_are_trained_on_are_named(tmp_path: Path) -> None:
    root = photos(tmp_path / "a", "train", "test")
    for i in range(3):
        copy(root, f"train/ants/{i}.png", f"test/ants/{i}.png")
    assert said(root) == [
        "3 of 10 test images are training images too, byte for byte, so that the test "
        "error is too low: train/ants/0.png = test/ants/0.png, "
        "train/ants/1.png = test/ants/1.png and others."
    ]


def test_validation_images_that_are_trained_on_are_named(tmp_path: Path) -> None:
    root = photos(tmp_path / "a", "train", "val", "test")
    copy(root, "train/ants/0.png", "val/bees/4.png")
    copy(root, "train/ants/0.png", "train/bees/0.png")
    sentence, contradiction = said(root)
    assert "of another class" in contradiction
    assert shared(load(str(root), root.parent)) == [sentence]
    assert sentence.startswith("1 of 10 validation images are training images too")
    assert sentence.endswith("train/ants/0.png = val/bees/4.png.")


def test_a_training_image_in_two_classes_is_named(tmp_path: Path) -> None:
    root = photos(tmp_path / "a", "train", "test")
    copy(root, "train/ants/0.png", "train/bees/0.png")
    copy(root, "train/ants/0.png", "train/ants/1.png")
    assert said(root) == [
        "1 of 10 training images have the same bytes as one of another class: "
        "train/ants/0.png = train/bees/0.png."
    ]


def test_files_of_one_size_are_not_taken_for_the_same(tmp_path: Path) -> None:
    root = photos(tmp_path / "a", "train", "test")
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        Image.new("RGB", (12, 12), (i, 0, 0)).save(path.with_suffix(".bmp"))
        path.unlink()
    assert len({path.stat().st_size for path in root.rglob("*.bmp")}) == 1
    assert said(root) == []


@pytest.mark.parametrize("count", [5000])
def test_ten_thousand_files_take_seconds(count: int, tmp_path: Path) -> None:
    for name in ("ants", "bees"):
        (tmp_path / "a" / name).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "a" / name / f"{i}.png").write_bytes(b"%9d" % (i // 2) * 2000)
    for name in ("ants", "bees"):
        Image.new("RGB", (70, 70)).save(tmp_path / "a" / name / "0.png")
    data = load(str(tmp_path / "a"), tmp_path, image_size=100)
    began = time.process_time()
    assert len(findings(data)) == 2
    assert time.process_time() - began < 10

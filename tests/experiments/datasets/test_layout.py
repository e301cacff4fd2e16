"""Image folders as people have them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import DataSet, Tensors, load, prepared
from flatmin.experiments.datasets._layout import Listed, listed
from flatmin.experiments.errors import BadInput
from tests.experiments.helpers import image_folder

TWO = {"cat": 5, "dog": 5}


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 12)).save(path)


def layout(root: Path, *parts: str) -> Listed:
    for part in parts:
        image_folder(root / part, TWO)
    return listed(root)


def folders(found: Listed) -> list[set[str] | None]:
    """The folders from which train, validation and test come."""
    splits = (found.train, found.validation, found.test)
    return [
        None if images is None else {name.split("/")[0] for name in images.names}
        for images in splits
    ]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("train", "test"), ["train", None, "test"]),
        (("train", "val"), ["train", None, "val"]),
        (("train", "valid"), ["train", None, "valid"]),
        (("train", "validation"), ["train", None, "validation"]),
        (("train", "val", "test"), ["train", "val", "test"]),
        (("Train", "Validation", "Test"), ["Train", "Validation", "Test"]),
        (("training", "testing"), ["training", None, "testing"]),
        (("train",), ["train", None, "train"]),
    ],
)
def test_parts_are_known_by_their_names(
    parts: tuple[str, ...], expected: list[str | None], tmp_path: Path
) -> None:
    found = layout(tmp_path, *parts)
    assert folders(found) == [name and {name} for name in expected]
    assert found.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (("train", "test"), "the folder's own train and test"),
        (("train", "val"), "the folder's own val, for it has no test"),
        (("train", "val", "test"), "its validation images are for the choice of"),
        (("train",), "20% of each class for the test"),
        (("",), "20% of each class for the test"),
    ],
)
def test_the_split_says_what_is_used_as_what(
    parts: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    assert sentence in layout(tmp_path, *parts).split


def test_train_can_be_a_class(tmp_path: Path) -> None:
    image_folder(tmp_path, {"car": 5, "train": 5})
    picture(tmp_path / "train" / "freight" / "a.png")
    found = listed(tmp_path)
    assert found.classes == ("car", "train")
    assert len(found.train) + len(found.test) == 11


def test_a_folder_has_one_validation_part(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has both val and validation"):
        layout(tmp_path, "train", "val", "validation")


def test_parts_without_train_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has test and val, but no train"):
        layout(tmp_path, "test", "val")


def test_a_test_without_classes_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "test" / "1.png")
    with pytest.raises(BadInput, match=r"no images in .*test.*or move test elsewhere"):
        layout(tmp_path, "train")


def test_a_test_of_some_of_the_classes_is_taken(tmp_path: Path) -> None:
    image_folder(tmp_path / "test", {"dog": 3})
    assert layout(tmp_path, "train").test.y.tolist() == [1, 1, 1]


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_class_that_train_lacks_is_named(part: str, tmp_path: Path) -> None:
    image_folder(tmp_path / part, {"cat": 1, "owl": 1})
    with pytest.raises(BadInput, match=rf"{part} has classes that train lacks: owl"):
        layout(tmp_path, "train", *({"test"} - {part}))


def test_of_many_classes_that_train_lacks_some_are_named(tmp_path: Path) -> None:
    for k in range(300):
        picture(tmp_path / "test" / f"class-{k}" / "0.png")
    with pytest.raises(BadInput, match="lacks: class-0, class-1") as refused:
        layout(tmp_path, "train")
    assert len(str(refused.value)) < len(str(tmp_path)) + 300


def validated(data: DataSet, share: float) -> DataSet:
    return prepared(data, Experiment(data=data.name, validation=share))


def test_own_validation_images_are_used_and_train_stays_whole(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("val", 3), ("test", 2)):
        image_folder(tmp_path / part, {"cat": count, "dog": count})
    data = load(str(tmp_path), tmp_path)
    assert [len(s.y) for s in (data.train, data.test)] == [10, 4]
    chosen = validated(data, 0.1)
    assert [len(s.y) for s in (chosen.train, chosen.test)] == [10, 6]
    assert chosen.split == "the folder's own validation images"
    assert validated(data, 0.0) is data
    assert chosen.digest() != data.digest()


def test_without_validation_images_some_of_train_are_held_out(tmp_path: Path) -> None:
    layout(tmp_path, "train", "val")
    data = validated(load(str(tmp_path), tmp_path), 0.2)
    assert [len(s.y) for s in (data.train, data.test)] == [8, 2]


@pytest.mark.parametrize(
    "hidden", [".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir", ".hidden"]
)
def test_hidden_folders_are_no_classes_and_no_part_of_one(
    hidden: str, tmp_path: Path
) -> None:
    layout(tmp_path, "")
    picture(tmp_path / hidden / "a.png")
    picture(tmp_path / "cat" / hidden / "a.png")
    found = listed(tmp_path)
    assert found.classes == ("cat", "dog")
    assert len(found.train) + len(found.test) == 10


def test_hidden_files_and_other_files_are_no_images(tmp_path: Path) -> None:
    layout(tmp_path, "")
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "notes.txt", "a.png.part"):
        (tmp_path / "cat" / name).write_text("no image")
    (tmp_path / "stray.png").write_text("no image")
    assert len(listed(tmp_path).train) == 8


def test_sub_folders_belong_to_their_class(tmp_path: Path) -> None:
    layout(tmp_path, "")
    picture(tmp_path / "cat" / "indoors" / "night" / "a.JPG")
    (tmp_path / "cat" / "folder.png").mkdir()
    picture(tmp_path / "cat" / "folder.png" / "b.png")
    found = listed(tmp_path)
    names = {*found.train.names, *found.test.names}
    assert {"cat/indoors/night/a.JPG", "cat/folder.png/b.png"} < names
    assert len(names) == 12


def test_links_that_leave_the_folder_are_followed(tmp_path: Path) -> None:
    image_folder(tmp_path / "elsewhere", {"owl": 5})
    root = tmp_path / "photos"
    layout(root, "")
    (root / "owl").symlink_to(tmp_path / "elsewhere" / "owl")
    (root / "cat" / "linked.png").symlink_to(tmp_path / "elsewhere" / "owl" / "0.png")
    data = load(str(root), tmp_path)
    assert data.classes == ("cat", "dog", "owl")
    assert len(data.train.y) + len(data.test.y) == 16


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    layout(tmp_path, "")
    for name in ("loop", "cat/loop", "dog/cat"):
        (tmp_path / name).symlink_to(tmp_path)
    (tmp_path / "cat" / "self").symlink_to(tmp_path / "cat")
    (tmp_path / "up").symlink_to("/")
    (tmp_path / "nowhere").symlink_to("/no/such/folder")
    found = listed(tmp_path)
    assert found.classes == ("cat", "dog")
    assert len(found.train) + len(found.test) == 10


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _broken(path: Path) -> None:
    path.symlink_to("nowhere")


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_pipe, _broken, _device])
def test_what_is_no_regular_file_is_named_at_once(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    layout(tmp_path, "")
    make(tmp_path / "cat" / "x.png")
    with pytest.raises(BadInput, match=r"not a readable image: .*cat/x\.png"):
        load(str(tmp_path), tmp_path, image_size=100)


@pytest.mark.parametrize("name", ["a\udcff", "a\nb", "a\x1b[31m", "a\u202eb"])
@pytest.mark.parametrize("where", ["class", "file", "root"])
def test_a_name_that_cannot_be_printed_is_refused_in_one_line(
    name: str, where: str, tmp_path: Path
) -> None:
    root = image_folder(tmp_path / "photos", TWO)
    if where == "root":
        root = root.rename(tmp_path / name)
    if where == "class":
        (root / "dog").rename(root / name)
    if where == "file":
        (root / "dog" / "0.png").rename(root / "dog" / f"{name}.png")
    with pytest.raises(BadInput, match="cannot be printed") as refused:
        load(str(root), tmp_path)
    assert str(refused.value).isprintable()


def test_names_in_any_language_are_read(tmp_path: Path) -> None:
    image_folder(tmp_path, {"猫": 5, "Hündchen mit 🎩": 5})
    (tmp_path / "猫" / "0.png").rename(tmp_path / "猫" / "3.41\u202fPM.png")
    assert load(str(tmp_path), tmp_path).classes == ("Hündchen mit 🎩", "猫")


def test_one_small_picture_does_not_make_all_small(tmp_path: Path) -> None:
    image_folder(tmp_path, TWO, size=40)
    Image.new("RGB", (9, 9)).save(tmp_path / "cat" / "0.png")
    data = load(str(tmp_path), tmp_path)
    assert isinstance(data.train, Tensors)
    assert data.train.x.shape == (8, 3, 40, 40)


def test_the_folder_above_gets_the_one_that_is_meant(tmp_path: Path) -> None:
    layout(tmp_path / "data", "train", "test")
    with pytest.raises(BadInput, match=r"only one class .*: 'data'.* Is .*data meant"):
        listed(tmp_path)


def test_an_empty_class_is_none(tmp_path: Path) -> None:
    layout(tmp_path, "train", "test")
    shutil.rmtree(tmp_path / "test" / "dog")
    (tmp_path / "train" / "owl").mkdir()
    found = listed(tmp_path)
    assert found.classes == ("cat", "dog")
    assert set(found.test.y.tolist()) == {0}


@pytest.mark.parametrize(
    "parts",
    [
        ("train", "eval"),
        ("train", "dev"),
        ("train", "Testing set"),
        ("trainset", "test_set"),
        ("train", "val2", "holdout"),
    ],
)
def test_parts_of_other_names_are_not_taken_for_classes(
    parts: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"have the same folders .*such as cat\. Is one"):
        layout(tmp_path, *parts)


@pytest.mark.parametrize("names", [("train", "car"), ("trainer", "valley")])
def test_classes_may_be_called_like_parts(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    for k, name in enumerate(names):
        for n in range(5):
            picture(tmp_path / name / f"of 202{k}" / f"{n}.png")
    assert listed(tmp_path).classes == tuple(sorted(names))

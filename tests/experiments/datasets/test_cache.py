"""Images of a folder are decoded once."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from flatmin.experiments.datasets import Tensors, _folder, load
from flatmin.experiments.errors import BadInput
from tests.experiments.helpers import image_folder

Decoded = list[str]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    names: Decoded = []
    original = _folder._square

    def square(path: Path, size: int) -> Tensor:
        names.append(path.name)
        return original(path, size)

    monkeypatch.setattr(_folder, "_square", square)
    return names


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "photos", {"a": 5, "b": 5})


def pixels(photos: Path, size: int | None = None) -> Tensor:
    data = load(str(photos), photos.parent / "data", size)
    assert isinstance(data.train, Tensors)
    assert isinstance(data.test, Tensors)
    return torch.cat([data.train.x, data.test.x])


def cache(photos: Path) -> Path:
    (path,) = (photos.parent / "data" / ".cache").glob("*.safetensors")
    return path


def test_the_second_time_nothing_is_decoded(photos: Path, decoded: Decoded) -> None:
    first = load(str(photos), photos.parent / "data")
    assert len(decoded) == 10
    second = load(str(photos), photos.parent / "data")
    assert len(decoded) == 10
    assert second.digest() == first.digest()
    assert second.classes == first.classes
    assert {p.name for p in photos.iterdir()} == {"a", "b"}


def repainted(path: Path) -> None:
    """Of the same size in bytes."""
    now = path.stat()
    path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    os.utime(path, ns=(now.st_atime_ns, now.st_mtime_ns + 1))


def resized(path: Path) -> None:
    """Of the same time."""
    now = path.stat()
    Image.new("RGB", (14, 14)).save(path)
    os.utime(path, ns=(now.st_atime_ns, now.st_mtime_ns))


def renamed(path: Path) -> None:
    path.rename(path.with_name("z.bmp"))


def added(path: Path) -> None:
    path.with_name("z.bmp").write_bytes(path.read_bytes())


def replaced_by_its_neighbour(path: Path) -> None:
    path.with_name("1.bmp").replace(path)


@pytest.mark.parametrize(
    "change", [repainted, resized, renamed, added, replaced_by_its_neighbour]
)
def test_a_change_in_the_folder_is_seen(
    change: Callable[[Path], None], tmp_path: Path, decoded: Decoded
) -> None:
    photos = image_folder(tmp_path / "photos", {"a": 5, "b": 5})
    for path in list(photos.glob("*/*")):
        with Image.open(path) as picture:
            picture.save(path.with_suffix(".bmp"))
        path.unlink()
    pixels(photos, 12)
    change(photos / "a" / "0.bmp")
    decoded.clear()
    seen = pixels(photos, 12)
    assert len(decoded) == len(seen)
    fresh = load(str(photos), tmp_path / "elsewhere", 12)
    assert isinstance(fresh.train, Tensors)
    assert torch.equal(seen[: len(fresh.train.x)], fresh.train.x)
    decoded.clear()
    assert torch.equal(pixels(photos, 12), seen)
    assert decoded == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"no tensors",
        lambda data: data[:-1],
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        lambda data: data.replace(b'"crc"', b'"c_c"'),
    ],
    ids=["empty", "no tensors", "cut", "a bit", "no sum"],
)
def test_a_damaged_cache_is_ignored_and_written_again(
    damage: Callable[[bytes], bytes], photos: Path, decoded: Decoded
) -> None:
    whole = pixels(photos).clone()
    path = cache(photos)
    path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(pixels(photos), whole)
    assert len(decoded) == 20
    assert torch.equal(pixels(photos), whole)
    assert len(decoded) == 20


def test_each_size_and_each_folder_has_its_own(
    photos: Path, tmp_path: Path, decoded: Decoded
) -> None:
    other = image_folder(tmp_path / "other" / "photos", {"a": 5, "b": 5}, size=12)
    for folder in (photos, other):
        for size in (8, 12):
            load(str(folder), tmp_path / "data", size)
    assert len(decoded) == 40
    for folder in (photos, other):
        for size in (8, 12):
            load(str(folder), tmp_path / "data", size)
    assert len(decoded) == 40


def test_where_nothing_can_be_written_images_are_decoded(
    photos: Path, decoded: Decoded
) -> None:
    (photos.parent / "data").write_text("no folder")
    assert len(pixels(photos)) == 10
    assert len(pixels(photos)) == 10
    assert len(decoded) == 20


def test_a_disk_that_is_full_costs_the_cache_alone(
    photos: Path, decoded: Decoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, path: Path, __: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flatmin.experiments.datasets._cache.save_file", full)
    assert len(pixels(photos)) == len(decoded) == 10
    assert {p.name for p in (photos.parent / "data/.cache").iterdir()} == {".lock"}


@pytest.mark.parametrize("gone", [True, False])
def test_an_image_that_cannot_be_read_is_named_and_nothing_is_kept(
    gone: bool, photos: Path
) -> None:
    path = photos / "b" / "3.png"
    path.unlink()
    if gone:
        path.symlink_to("nowhere")
    else:
        path.write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"not a readable image: .*3\.png"):
        pixels(photos, 12)
    left = [p.name for p in (photos.parent / "data").glob(".cache/*")]
    assert left == ([] if gone else [".lock"])

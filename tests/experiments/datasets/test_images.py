"""Pictures of every kind are opened as a person sees them."""

import contextlib
import io
import os
import socket
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from flatmin.experiments.datasets._images import open_image
from flatmin.experiments.errors import BadInput

DEEP = np.array([[0, 128, 257, 30000, 65535]], np.uint16)
#: 8-bit levels, to the nearest.
LEVELS = [0, 0, 1, 117, 255]


def grey(path: Path) -> list[int]:
    """The levels of the first row, which must be grey."""
    found = np.asarray(open_image(path))
    assert (found == found[..., :1]).all()
    return found[0, :, 0].tolist()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_scaled_and_not_clipped(name: str, tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / name)
    assert grey(tmp_path / name) == LEVELS


def test_16_bits_of_the_other_byte_order_are_scaled(tmp_path: Path) -> None:
    picture = Image.frombytes("I;16B", (5, 1), DEEP.astype(">u2").tobytes())
    picture.save(tmp_path / "a.tif")
    assert grey(tmp_path / "a.tif") == LEVELS


def test_16_bits_in_which_white_is_zero_are_turned_round(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    Image.fromarray(DEEP).save(tmp_path / "a.tif", tiffinfo=tags)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    entry = struct.pack("<HHI", 262, 3, 1)
    at = data.index(entry) + len(entry)
    data[at : at + 2] = b"\0\0"
    (tmp_path / "a.tif").write_bytes(data)
    assert grey(tmp_path / "a.tif") == [255 - level for level in LEVELS]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bits_are_refused(kind: type, tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 300, kind)).save(tmp_path / "a.tif")
    with pytest.raises(BadInput, match=r"a\.tif has 32-bit pixels .* 8 or 16 bits"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 90, (90, 90, 90)),
        ("LA", (90, 255), (90, 90, 90)),
        ("LA", (90, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 100, 200, 51), (204, 224, 244)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
    ],
)
def test_every_mode_becomes_the_colour_that_is_seen(
    mode: str, colour: object, expected: tuple[int, ...], tmp_path: Path
) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (6, 6), colour).save(path)  # type: ignore[arg-type]
    found = open_image(path)
    assert found.mode == "RGB"
    assert found.getpixel((2, 2)) == expected


def test_colours_of_a_palette_and_the_transparent_one(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([200, 10, 10, 10, 200, 10])
    picture.putdata([0, 1])
    for name in ("a.png", "a.gif"):
        picture.save(tmp_path / name, transparency=1)
        found = open_image(tmp_path / name)
        assert [found.getpixel((i, 0)) for i in (0, 1)] == [
            (200, 10, 10),
            (255, 255, 255),
        ]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "deep.png"])
def test_a_picture_is_turned_as_its_camera_was(name: str, tmp_path: Path) -> None:
    pixels = np.zeros((8, 16), np.uint16 if name == "deep.png" else np.uint8)
    pixels[:, 8:] = np.iinfo(pixels.dtype).max
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    found = np.asarray(open_image(tmp_path / name))[..., 0]
    assert found.shape == (16, 8)
    assert found[:7].max() < 20
    assert found[9:].min() > 235


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_uncompressed_tiff_is_turned_like_a_png(
    orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.tif"):
        pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    one, other = (np.asarray(open_image(tmp_path / f"a.{x}")) for x in ("tif", "png"))
    assert np.array_equal(one, other)


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), level) for level in (40, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path / "a.gif").getpixel((0, 0)) == (40, 40, 40)


def _encoded(kind: str, size: int = 64) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((size, size), 90).convert("RGB").save(stream, kind)
    return stream.getvalue()


def _postscript(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    short = Path(os.path.relpath(path))
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(short) if len(str(short)) < 100 else "x.png")


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()


def _nothing(path: Path) -> None:
    path.touch()


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_postscript, "none of BMP, GIF"),
        (_nothing, "none of BMP, GIF"),
        (_pipe, "no such regular file"),
        (_socket, "no such regular file"),
        (_device, "no such regular file"),
        (_folder, "no such regular file"),
        (_loop, "no such regular file"),
    ],
)
def test_what_is_no_picture_is_refused_at_once(
    make: Callable[[Path], None],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    def started(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    make(tmp_path / "x.png")
    with pytest.raises(BadInput, match=message) as refused:
        open_image(tmp_path / "x.png")
    assert str(tmp_path / "x.png") in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_a_truncated_file_is_one_line(kind: str, tmp_path: Path) -> None:
    whole = _encoded(kind)
    path = tmp_path / "a.png"
    path.write_bytes(whole)
    open_image(path)
    for part in (1, len(whole) // 10, len(whole) // 2):
        path.write_bytes(whole[:part])
        with pytest.raises(BadInput, match=r"not a readable image: .*a\.png") as one:
            open_image(path)
        assert "\n" not in str(one.value)


@pytest.mark.parametrize("side", [12_000, 20_000])
def test_a_bomb_is_refused_before_it_is_unpacked(side: int, tmp_path: Path) -> None:
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    small = bytearray(_encoded("PNG"))
    small[16:29] = head
    small[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + head))
    (tmp_path / "a.png").write_bytes(small)
    tracemalloc.start()
    with pytest.raises(BadInput, match=r"image too large: .*a\.png \(more than"):
        open_image(tmp_path / "a.png")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_bomb_of_text_is_refused(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("a", "x" * 70_000_000, zip=True)
    Image.new("L", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(BadInput, match=r"not a readable image: .*a\.png"):
        open_image(tmp_path / "a.png")


def test_damage_anywhere_is_refused_or_read_but_never_a_crash(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "a.png"
    for kind in ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"):
        whole = _encoded(kind, 16)
        for _ in range(60):
            data = bytearray(whole)
            for at in random.integers(0, min(len(data), 120), 3):
                data[at] = random.integers(256)
            path.write_bytes(data)
            with contextlib.suppress(BadInput):
                assert open_image(path).mode == "RGB"

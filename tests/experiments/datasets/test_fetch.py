"""Downloads from a server on this machine, and none from elsewhere."""

import hashlib
import io
import random
import re
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import pytest

from flatmin.experiments.datasets import SETS, load
from flatmin.experiments.datasets._fetch import Remote, fetch
from flatmin.experiments.errors import BadInput


def archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


NOISE = random.Random(0).randbytes(5000)
GOOD = archive({"set/a.txt": NOISE, "set/b.txt": b"b"})
MD5 = hashlib.md5(GOOD).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves, by name: ``cut`` announces more than it sends."""

    def __init__(self, asked: list[str], *arguments: object) -> None:
        self.asked = asked
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(GOOD)))
        self.end_headers()
        self.wfile.write(GOOD[:-30] if "cut" in self.path else GOOD)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def server(asked: list[str]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, asked)) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def test_an_archive_is_downloaded_once_and_unpacked(
    server: str, asked: list[str], tmp_path: Path
) -> None:
    files = [Remote(f"{server}/good.tar.gz", MD5, "set")]
    fetch("Set", files, tmp_path, "inside")
    before = len(asked)
    fetch("Set", files, tmp_path, "inside")
    assert (tmp_path / "inside/set/a.txt").read_bytes() == NOISE
    assert len(asked) == before > 0
    assert {p.name for p in (tmp_path / "inside").iterdir()} == {"good.tar.gz", "set"}


@pytest.mark.parametrize("md5", [MD5, None])
def test_a_download_that_breaks_off_is_never_used(
    md5: str | None, server: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput):
        fetch("Set", [Remote(f"{server}/cut.tar.gz", md5, "set")], tmp_path)
    assert not (tmp_path / "set").exists()
    assert not (tmp_path / ".part").exists()


def test_what_a_killed_download_left_is_thrown_away(
    server: str, tmp_path: Path
) -> None:
    (tmp_path / ".part").mkdir()
    (tmp_path / ".part" / "good.tar.gz").write_bytes(archive({"set/b.txt": b"old"}))
    (tmp_path / ".part" / "set").write_text("half")
    fetch("Set", [Remote(f"{server}/good.tar.gz", None, "set")], tmp_path)
    assert (tmp_path / "set/b.txt").read_bytes() == b"b"
    assert not (tmp_path / ".part").exists()


def test_a_file_that_was_put_there_by_hand_is_unpacked(
    offline: None, tmp_path: Path
) -> None:
    del offline
    (tmp_path / "good.tar.gz").write_bytes(GOOD)
    fetch("Set", [Remote("https://x.org/good.tar.gz", MD5, "set")], tmp_path)
    assert (tmp_path / "set/b.txt").read_bytes() == b"b"


@pytest.mark.parametrize("content", [GOOD[:-30], b"", b"no archive at all"])
@pytest.mark.parametrize("md5", [MD5, None])
def test_a_broken_archive_is_named(
    content: bytes, md5: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "good.tar.gz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=re.escape(f"{path} is damaged")):
        fetch("Set", [Remote("https://x.org/good.tar.gz", md5, "set")], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["good.tar.gz"]


def test_a_member_that_would_leave_the_folder_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    content = archive({"set/a": b"", "../../outside": b"x"})
    (place / "x.tgz").write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.tgz is damaged .*outside"):
        fetch("Set", [Remote("https://x.org/x.tgz", None, "set")], place)
    assert not (tmp_path / "a" / "outside").exists()
    assert not (place / "set").exists()


def test_a_file_with_another_checksum_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file.tar.gz"
    path.write_bytes(archive({"set/a.txt": b"something else"}))
    for holds in ("set", None):
        with pytest.raises(BadInput, match=re.escape(f"{path} is damaged (its MD5")):
            fetch("Set", [Remote("https://x.org/file.tar.gz", MD5, holds)], tmp_path)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("name", "place", "files"),
    [
        ("cifar10", "", ["www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"]),
        ("cifar100", "", ["www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"]),
        ("svhn", "", ["train_32x32.mat", "test_32x32.mat", "extra_32x32.mat"]),
        (
            "fashion-mnist",
            "FashionMNIST/raw",
            ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"],
        ),
        ("flowers", "flowers-102", ["102flowers.tgz", "imagelabels.mat", "setid.mat"]),
        ("pets", "oxford-iiit-pet", ["data/images.tar.gz", "data/annotations.tar.gz"]),
        ("food101", "", ["food-101.tar.gz"]),
        ("aircraft", "", ["fgvc-aircraft-2013b.tar.gz"]),
    ],
)
def test_without_a_network_one_line_says_what_belongs_where(
    name: str, place: str, files: list[str], offline: None, tmp_path: Path
) -> None:
    del offline
    with pytest.raises(BadInput) as refused:
        load(name, tmp_path)
    message = str(refused.value)
    assert message.startswith(f"{SETS[name].title} cannot be downloaded (<urlopen")
    assert f"Put into {tmp_path / name / place}: http" in message
    assert all(file in message for file in files)
    assert "\n" not in message


def test_only_what_is_still_missing_is_asked_for(offline: None, tmp_path: Path) -> None:
    del offline
    place = tmp_path / "pets" / "oxford-iiit-pet"
    (place / "images").mkdir(parents=True)
    with pytest.raises(BadInput, match=r": \S+/annotations\.tar\.gz$"):
        load("pets", tmp_path)

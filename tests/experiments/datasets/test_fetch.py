"""Downloads from a server on this machine, and none from elsewhere."""

import gzip
import hashlib
import io
import os
import random
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest

from flatmin.experiments.datasets import SETS, load
from flatmin.experiments.datasets._fetch import Remote, fetch
from flatmin.experiments.errors import BadInput
from tests.experiments.datasets.site import Site


def archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    # Without the time of day: names of tests contain its checksum.
    return gzip.compress(stream.getvalue(), mtime=0)


NOISE = random.Random(0).randbytes(5000)
GOOD = archive({"set/a.txt": NOISE, "set/b.txt": b"b"})
MD5 = hashlib.md5(GOOD).hexdigest()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(GOOD, {"ETag": '"1"'}).running() as running:
        yield running


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def test_an_archive_is_downloaded_once_and_unpacked(
    site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [Remote(f"{site.address}/good.tar.gz", MD5, "set")]
    fetch("Set", files, tmp_path, "inside")
    fetch("Set", files, tmp_path, "inside")
    assert (tmp_path / "inside/set/a.txt").read_bytes() == NOISE
    assert site.sent == [len(GOOD)]
    assert {p.name for p in (tmp_path / "inside").iterdir()} == {"good.tar.gz", "set"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("md5", [MD5, None])
def test_a_download_that_breaks_off_is_never_used(
    md5: str | None, site: Site, tmp_path: Path
) -> None:
    site.cut = [4000, 0]
    files = [Remote(f"{site.address}/good.tar.gz", md5, "set")]
    with pytest.raises(BadInput, match=rf"\(4,000 of {len(GOOD):,} bytes came\)"):
        fetch("Set", files, tmp_path)
    kept = {".lock", "good.tar.gz.part", "good.tar.gz.part.json"}
    assert {p.name for p in tmp_path.iterdir()} == kept
    fetch("Set", files, tmp_path)
    assert site.sent == [4000, 0, len(GOOD) - 4000]
    assert {p.name for p in tmp_path.iterdir()} == {".lock", "good.tar.gz", "set"}


def test_what_a_killed_process_was_unpacking_is_thrown_away(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / ".part" / "set").mkdir(parents=True)
    (tmp_path / ".part" / "set" / "old.txt").write_text("half")
    fetch("Set", [Remote(f"{site.address}/good.tar.gz", None, "set")], tmp_path)
    assert {p.name for p in (tmp_path / "set").iterdir()} == {"a.txt", "b.txt"}
    assert not (tmp_path / ".part").exists()


def test_of_two_processes_one_downloads_and_the_other_says_that_it_waits(
    site: Site, tmp_path: Path
) -> None:
    files = [Remote(f"{site.address}/good.tar.gz", MD5, "set")]
    program = (
        "import sys; from pathlib import Path\n"
        "from flatmin.experiments.datasets._fetch import Remote, fetch\n"
        "fetch('Set', [Remote(sys.argv[1], sys.argv[2], 'set')], Path(sys.argv[3]))"
    )
    site.held.clear()
    first = threading.Thread(target=fetch, args=("Set", files, tmp_path))
    first.start()
    site.reached.wait()
    with subprocess.Popen(
        [sys.executable, "-c", program, files[0].url, MD5, str(tmp_path)],
        env={**os.environ, "FORCE_COLOR": "1"},  # rich takes the pipe for a terminal
        stderr=subprocess.PIPE,
        text=True,
    ) as second:
        assert second.stderr is not None
        waiting = any("Set: waiting for" in line for line in second.stderr)
        site.held.set()
        first.join()
        second.stderr.read()
    assert waiting
    assert second.returncode == 0
    assert len(site.asked) == 1
    assert (tmp_path / "set/a.txt").read_bytes() == NOISE


def test_what_is_there_is_read_from_a_folder_that_nobody_may_write_to(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_bytes(GOOD)
    fetch("Set", [Remote("https://x.org/file", MD5)], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


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
    assert {p.name for p in tmp_path.iterdir()} == {".lock", "good.tar.gz"}


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
        ("etth1", "", ["ETDataset/main/ETT-small/ETTh1.csv"]),
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

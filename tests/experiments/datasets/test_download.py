"""Downloads that break off, from servers of all kinds."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from rich.progress import Progress

from flatmin.experiments.datasets._download import download
from tests.experiments.datasets.site import Site

FILE = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(310_000)
AT = 200_000


def digest(content: bytes) -> str:
    """What tests compare: pytest takes minutes for the difference of random bytes."""
    return hashlib.md5(content).hexdigest()


MD5 = digest(FILE)
DATE = "Tue, 10 Sep 2013 15:39:23 GMT"
LATER = "Wed, 11 Sep 2013 15:39:23 GMT"


class Bars(Progress):
    """Remembers what it would show."""

    def __init__(self) -> None:
        super().__init__(disable=True)
        self.shown: list[tuple[float, float]] = []

    def update(self, task_id: Any, **fields: Any) -> None:
        self.shown.append((fields["completed"], fields["total"]))


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(FILE, {"ETag": '"1"'}).running() as running:
        yield running


def get(site: Site, folder: Path, md5: str | None = MD5) -> str:
    """The digest of what was downloaded."""
    path = folder / "file"
    download(f"{site.address}/file", md5, path, Bars())
    assert [p.name for p in folder.iterdir()] == ["file"]
    return digest(path.read_bytes())


def broken(site: Site, folder: Path, md5: str | None = MD5, then: int = 0) -> None:
    """A start that gets the first bytes, and ``then`` as many when it asks again."""
    site.cut = [AT, then]
    with pytest.raises(OSError, match=rf"{AT:,} of {len(site.content):,} bytes came"):
        download(f"{site.address}/file", md5, folder / "file", Bars())
    part = (folder / "file.part").read_bytes()
    assert digest(part) == digest(site.content[:AT])
    assert not (folder / "file").exists()
    site.asked.clear()
    site.sent.clear()


def test_a_connection_that_breaks_off_is_taken_up_at_once(
    site: Site, tmp_path: Path
) -> None:
    site.cut = [100_000, 50_000]
    assert get(site, tmp_path) == MD5
    assert site.sent == [100_000, 50_000, 150_000]
    assert [asked["Range"] for asked in site.asked] == [
        None,
        "bytes=100000-",
        "bytes=150000-",
    ]


@pytest.mark.parametrize("md5", [MD5, None])
def test_the_next_start_sends_no_byte_again(
    md5: str | None, site: Site, tmp_path: Path
) -> None:
    broken(site, tmp_path, md5)
    assert get(site, tmp_path, md5) == MD5
    assert site.sent == [len(FILE) - AT]


def test_a_server_without_ranges_starts_over(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    broken(site, tmp_path, then=AT)
    assert get(site, tmp_path) == MD5
    assert site.sent == [len(FILE)]


@pytest.mark.parametrize("careless", [False, True])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"ETag": '"1"'}, {"ETag": '"2"'}),
        ({"Last-Modified": DATE}, {"Last-Modified": LATER}),
    ],
)
def test_a_file_that_has_changed_is_not_mixed_with_its_old_part(
    old: dict[str, str],
    new: dict[str, str],
    careless: bool,
    site: Site,
    tmp_path: Path,
) -> None:
    site.headers = old
    broken(site, tmp_path, None)
    site.content, site.headers, site.careless = OTHER, new, careless
    assert get(site, tmp_path, None) == digest(OTHER)
    assert site.asked[0]["If-Range"] == next(iter(old.values()))


@pytest.mark.parametrize(
    ("headers", "condition"),
    [
        ({"ETag": '"1"', "Last-Modified": DATE}, '"1"'),
        ({"ETag": 'W/"1"', "Last-Modified": DATE}, DATE),
        ({"ETag": 'W/"1"'}, None),
        ({}, None),
    ],
    ids=["strong tag", "weak tag and date", "weak tag", "nothing"],
)
def test_the_strongest_condition_is_asked_for(
    headers: dict[str, str], condition: str | None, site: Site, tmp_path: Path
) -> None:
    site.headers = headers
    broken(site, tmp_path)
    assert get(site, tmp_path) == MD5
    assert site.asked[0]["Range"] == f"bytes={AT}-"
    assert site.asked[0]["If-Range"] == condition


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}])
def test_nothing_is_continued_that_nobody_could_check(
    headers: dict[str, str], site: Site, tmp_path: Path
) -> None:
    site.headers = headers
    broken(site, tmp_path, None, then=AT)
    site.content = OTHER
    assert get(site, tmp_path, None) == digest(OTHER)
    assert [asked["Range"] for asked in site.asked] == [None]


def test_a_part_of_another_file_is_found_by_the_checksum(
    site: Site, tmp_path: Path
) -> None:
    site.headers = {}
    site.content = OTHER
    broken(site, tmp_path)
    site.content = FILE
    assert get(site, tmp_path) == MD5
    assert site.sent == [len(FILE) - AT, len(FILE)]


def test_another_checksum_is_refused_and_nothing_stays(
    site: Site, tmp_path: Path
) -> None:
    site.content = OTHER
    with pytest.raises(OSError, match=f"checksum of file is not {MD5}"):
        get(site, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert site.sent == [len(OTHER)]


def test_a_part_with_another_checksum_is_tried_once_more_and_no_more(
    site: Site, tmp_path: Path
) -> None:
    site.content = OTHER
    broken(site, tmp_path)
    with pytest.raises(OSError, match="checksum"):
        get(site, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert site.sent == [len(OTHER) - AT, len(OTHER)]


@pytest.mark.parametrize("md5", [MD5, None])
def test_a_part_that_is_complete_needs_no_byte_more(
    md5: str | None, site: Site, tmp_path: Path
) -> None:
    broken(site, tmp_path, md5)
    (tmp_path / "file.part").write_bytes(FILE)
    assert get(site, tmp_path, md5) == MD5
    assert site.sent == []
    assert [asked["Range"] for asked in site.asked] == [f"bytes={len(FILE)}-"]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(
    site: Site, tmp_path: Path
) -> None:
    broken(site, tmp_path, None)
    (tmp_path / "file.part").write_bytes(FILE + b"more")
    assert get(site, tmp_path, None) == MD5
    assert site.sent == [len(FILE)]


def test_a_rest_that_begins_elsewhere_is_not_taken(site: Site, tmp_path: Path) -> None:
    broken(site, tmp_path, None)
    site.shift = 7
    assert get(site, tmp_path, None) == MD5


@pytest.mark.parametrize("status", [404, 416, 503])
def test_a_refusal_keeps_what_is_there(status: int, site: Site, tmp_path: Path) -> None:
    url = f"{site.address}/file"
    site.status = status
    with pytest.raises(HTTPError, match=f"Error {status}"):
        download(url, MD5, tmp_path / "file", Bars())
    assert list(tmp_path.iterdir()) == []
    site.status = None
    broken(site, tmp_path)
    if status != 416:
        site.status = status
        with pytest.raises(HTTPError, match=f"Error {status}"):
            download(url, MD5, tmp_path / "file", Bars())
        assert (tmp_path / "file.part").stat().st_size == AT


def test_the_bar_counts_megabytes_and_what_was_there(
    site: Site, tmp_path: Path
) -> None:
    broken(site, tmp_path)
    bars = Bars()
    download(f"{site.address}/file", MD5, tmp_path / "file", bars)
    assert bars.shown[0] == (0.2, 0.3)
    assert bars.shown[-1] == (0.3, 0.3)
    assert bars.tasks == []

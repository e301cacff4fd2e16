"""Download one file: whole, checked, and continued where a download broke off.

The bytes so far are in ``NAME.part``. Beside it, ``NAME.part.json`` keeps the headers
that tell this version of the file from another.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from rich.progress import Progress

from flatmin.experiments.runs.files import read_json, write_json

#: What `download` raises if a file cannot be had.
FAILURES = (OSError, HTTPException)

_VERSION = ("ETag", "Last-Modified")
_CHUNK = 1 << 16
_SECONDS = 60

#: Called with the number of bytes so far, and of all bytes if that is known.
_Tick = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class _Part:
    """The first bytes of a file."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> dict[str, str]:
        return read_json(self._headers) or {}

    @property
    def _headers(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def begin(self, headers: HTTPMessage) -> None:
        self.discard()
        kept = {name: headers[name] for name in _VERSION if headers[name]}
        write_json(self._headers, kept)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._headers.unlink(missing_ok=True)


def download(url: str, md5: str | None, path: Path, progress: Progress) -> None:
    """Download a file to ``path``; if that breaks off, leave the part beside it.

    An existing part is continued if the server can do that and still has the same file.
    Without a checksum, the server must tell that by its headers. If the part turns out
    to be of another file, it is removed, and the download starts over, once.

    Args:
        url: where the file is.
        md5: its checksum; None if none is known.
        path: where the file belongs; nothing is there yet.
        progress: gets a bar, in megabytes.

    Raises:
        OSError: it cannot be had, or has another checksum.
        HTTPException: the server does not speak HTTP.
    """
    from torchvision.datasets.utils import check_integrity

    path.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(path.with_name(f"{path.name}.part"))
    begun = part.size > 0
    _complete(url, part, md5 is not None, progress)
    if check_integrity(part.path, md5):
        part.path.replace(path)
        part.discard()
        return
    part.discard()
    if not begun:
        raise OSError(f"the MD5 checksum of {path.name} is not {md5}")
    download(url, md5, path, progress)


def _complete(url: str, part: _Part, checked: bool, progress: Progress) -> None:
    """Connect until the part is complete, as long as each connection adds to it."""
    task = progress.add_task(part.path.stem, total=None, note="MB")

    def tick(done: int, total: int | None) -> None:
        whole = None if total is None else total / 1e6
        progress.update(task, completed=done / 1e6, total=whole)

    complete = False
    try:
        while not complete:
            before = part.size
            try:
                complete = _receive(url, part, checked, tick)
            except FAILURES:
                if part.size <= before:
                    raise
    finally:
        progress.remove_task(task)


def _receive(url: str, part: _Part, checked: bool, tick: _Tick) -> bool:
    """Receive the rest of a part in one connection.

    Returns:
        True: the part is complete. False: it was of another file, and was removed.

    Raises:
        OSError, HTTPException: the connection broke off.
    """
    version = part.version
    have = part.size if checked or _condition(version) else 0
    with _open(url, have, _condition(version)) as answer:
        resumed = have > 0 and answer.status in (206, 416)
        if resumed and not _continues(answer, have, version):
            part.discard()
            return False
        if not resumed:
            part.begin(answer.headers)
        total = _total(answer) if resumed else answer.length
        if answer.status != 416:
            _append(answer, part.path, total, tick)
    if total not in (None, part.size):
        raise OSError(f"{part.size:,} of {total:,} bytes came")
    return True


def _open(url: str, have: int, condition: str | None) -> Any:
    headers = {"User-Agent": "flatmin"}
    if have:
        headers["Range"] = f"bytes={have}-"
    if have and condition:
        headers["If-Range"] = condition
    request = urllib.request.Request(url, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=_SECONDS)
    except HTTPError as error:
        if have and error.code == 416:
            return error
        raise


def _condition(version: dict[str, str]) -> str | None:
    """Return the header that identifies the bytes, for If-Range (RFC 9110, 13.1.5)."""
    tag = version.get("ETag", "W/")
    return version.get("Last-Modified") if tag.startswith("W/") else tag


def _continues(answer: Any, have: int, version: dict[str, str]) -> bool:
    """Whether an answer continues the part: the same file, from the part's end on."""
    told = answer.headers
    if any(told[name] not in (None, kept) for name, kept in version.items()):
        return False
    # 416: no bytes follow the part, which is the whole file if the lengths are equal.
    place = rf"{have}-\d+/\d+" if answer.status == 206 else rf"\*/{have}"
    return re.fullmatch(f"bytes {place}", told["Content-Range"] or "") is not None


def _total(answer: Any) -> int:
    return int(answer.headers["Content-Range"].rpartition("/")[2])


def _append(answer: Any, path: Path, total: int | None, tick: _Tick) -> None:
    with path.open("ab") as file:
        tick(file.tell(), total)
        while chunk := answer.read1(_CHUNK):
            file.write(chunk)
            tick(file.tell(), total)

"""Download, check and unpack files of data sets; partial files are never used."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from flatmin.experiments.datasets._download import FAILURES, download
from flatmin.experiments.errors import BadInput
from flatmin.experiments.progress import open_bars
from flatmin.experiments.runs.files import Busy, in_turn, locked

_PART = ".part"


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on a server.

    Attributes:
        url: where it is.
        md5: its checksum; None if none is published.
        holds: the file or folder that an archive is unpacked to; None for a file that
            is read as it is.
    """

    url: str
    md5: str | None
    holds: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


def fetch(title: str, files: Sequence[Remote], folder: Path, inside: str = "") -> None:
    """Bring each file, or the contents of its archive, into ``folder / inside``.

    A download that broke off is continued. Of several processes, one downloads and the
    others wait.

    Raises:
        BadInput: a file cannot be downloaded, or is damaged.
    """
    place = folder / inside
    if _needed(files, place):
        with open_bars() as progress, _alone(title, folder, progress):
            # Asked again: another process may have brought some meanwhile.
            _bring(title, _needed(files, place), place, progress)
    for file in files:
        if file.holds is None:
            check(place / file.name, file.md5)


def require(title: str, names: Sequence[str], folder: Path, how: str) -> None:
    """Refuse a ``folder`` without these files and folders.

    Raises:
        BadInput: one is missing; ``how`` says what to do.
    """
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise BadInput(f"{title}: {folder} lacks {', '.join(missing)}. {how}")


def check(path: Path, md5: str | None) -> None:
    """Refuse a file that has another checksum; None accepts any file.

    Raises:
        BadInput: the file is missing, or has another checksum.
    """
    from torchvision.datasets.utils import check_integrity

    if not path.is_file():
        raise BadInput(f"no such file: {path}")
    if not check_integrity(path, md5):
        raise damaged(path, f"its MD5 checksum is not {md5}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any error of a reader into one that names the damaged file."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from None


def damaged(path: Path, why: object) -> BadInput:
    """Return the error about a damaged file."""
    line = _line(why)
    if path.is_dir():
        return BadInput(f"{path}: a file is damaged or missing ({line}).")
    return BadInput(f"{path} is damaged ({line}). Remove it and start again.")


def _line(why: object) -> str:
    return " ".join(str(why).partition("\n")[0].split())


def _needed(files: Sequence[Remote], place: Path) -> list[Remote]:
    return [file for file in files if not (place / (file.holds or file.name)).exists()]


@contextmanager
def _alone(title: str, folder: Path, progress: Progress) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except Busy:
            progress.console.print(f"{title}: waiting for the process that brings it.")
            stack.enter_context(in_turn(folder))
        yield


def _bring(
    title: str, needed: Sequence[Remote], place: Path, progress: Progress
) -> None:
    absent = [file for file in needed if not (place / file.name).exists()]
    for file in absent:
        try:
            download(file.url, file.md5, place / file.name, progress)
        except FAILURES as error:
            urls = ", ".join(other.url for other in absent)
            raise BadInput(
                f"{title} cannot be downloaded ({_line(error)}). "
                f"Put into {place}: {urls}"
            ) from None
    for file in needed:
        if file.holds is not None:
            check(place / file.name, file.md5)
            _unpack(place / file.name, file.holds)


def _unpack(archive: Path, holds: str) -> None:
    with _part(archive.parent) as part:
        try:
            with tarfile.open(archive) as tar:
                # As Python's documentation advises for versions without the filter.
                default = getattr(tarfile, "data_filter", lambda member, _: member)
                tar.extraction_filter = default
                tar.extractall(part)
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise damaged(archive, error) from None
        except OSError as error:
            raise BadInput(f"cannot unpack {archive}: {error}") from None
        if not (part / holds).exists():
            raise damaged(archive, f"it holds no {holds}")
        (part / holds).replace(archive.parent / holds)


@contextmanager
def _part(place: Path) -> Iterator[Path]:
    """Yield a place to unpack an archive, without the leftovers of killed processes."""
    part = place / _PART
    shutil.rmtree(part, ignore_errors=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)

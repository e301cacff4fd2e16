"""Files that are whole or absent, whatever moment the program is killed at."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, content: bytes | str) -> None:
    """Write a file in one stroke: readers see the old one or the new one.

    Raises:
        OSError: it cannot be written, for instance because the disk is full; the error
            names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    half = path.with_name(f".{path.name}.part")
    try:
        with half.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        half.unlink(missing_ok=True)
        # An error of writing, unlike one of opening, does not say where.
        error.filename = error.filename or str(path)
        raise
    half.replace(path)

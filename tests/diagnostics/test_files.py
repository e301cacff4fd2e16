"""Files that cannot be written whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flatmin.diagnostics._files import write


def test_a_file_that_cannot_be_written_is_named_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a" / "result.json"
    write(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*a/result\.json"):
        write(path, "new")
    assert path.read_text() == "old"
    assert [one.name for one in path.parent.iterdir()] == ["result.json"]

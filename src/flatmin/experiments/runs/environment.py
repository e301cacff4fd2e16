"""The record of a run's start: versions, machine, command, and the source's commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

import flatmin

#: Seconds that git may take.
_PATIENCE = 10


def start() -> dict[str, Any]:
    """Describe this process, for ``environment.jsonl``."""
    commit, modified = source(Path(flatmin.__file__).parent)
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "flatmin": flatmin.__version__,
        "commit": commit,
        "modified": modified,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


@cache
def source(package: Path) -> tuple[str | None, bool | None]:
    """Return the commit of a package's source, and whether its files differ from it.

    Both are None if git does not track the package: a package that is installed inside
    of another checkout does not have that checkout's commit.

    Args:
        package: the folder of the package.
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--", ".")
    return commit, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints; None if git is not installed, or fails."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

"""The line that belongs beside every measured number."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import torch

import flatmin


def machine() -> str:
    """Name processor, cores, versions, and the running command."""
    command = " ".join(["python", *sys.argv])
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; "
        f"Python {platform.python_version()}, torch {torch.__version__}, flatmin "
        f"{flatmin.__version__}; `{command}`"
    )


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.split(":")[1].strip() for line in lines if "model name" in line)
    return next(names, platform.processor())

"""A small comparison, image folders, and the program run in this process."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flatmin.experiments import cli

#: A comparison that is small enough for seconds, and has everything.
TINY = (
    "--set=epochs=2",
    "--set=seeds=2",
    "--set=search_seeds=1",
    "--set=lengths=[0.5,1]",
    "--set=lrs=[1,2]",
    "--set=rhos=[0.5]",
    "--set=sam_lengths=[0.5]",
    '--set=model_options={"width": 4}',
    "--set=landscape_points=3",
    "--set=noise=[0.4]",
)

#: ``--flag`` style arguments to exit code, stdout and stderr.
Program = Callable[..., tuple[int, str, str]]


def image_folder(root: Path, classes: dict[str, int], size: int = 12) -> Path:
    """Random pictures, each class of a colour of its own, as real PNG files."""
    random = np.random.default_rng(0)
    for k, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 100, (size, size + 3, 3))
            pixels[..., k % 3] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def unreadable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody list a folder, not even the user who may read everything."""
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if Path(os.fsdecode(path)) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def run_program(
    arguments: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, str, str]:
    """The command line in this process."""
    monkeypatch.setattr(sys, "argv", ["flatmin", *map(str, arguments)])
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    except Exception as error:
        raise AssertionError("a traceback in the place of one line") from error
    out, err = capsys.readouterr()
    code = stopped.value.code
    return (code if isinstance(code, int) else 0 if code is None else 1), out, err

"""Folders on the command line, and the finished runs in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from flatmin.experiments import comparison, trained
from flatmin.experiments.datasets import load
from flatmin.experiments.errors import BadInput
from flatmin.experiments.finished import Finished
from flatmin.experiments.store import read_json


def finished(folders: Sequence[Path], data: Path) -> list[Finished]:
    """The finished runs in some folders, in the folders' order.

    Args:
        folders: each is a run of ``flatmin train`` or a folder above such runs, as far
            up as ``--out``; or what ``flatmin compare`` wrote, or a part of it.
        data: where the data sets of ``flatmin train`` are.

    Raises:
        BadInput: a folder is something else, damaged, or without a finished run; the
            images are not there, have changed, or are read from files; a run comes
            twice.
    """
    # Runs share their data sets, as long as they are open.
    shared = lru_cache(maxsize=2)(load)
    runs = [run for folder in folders for run in _inside(folder, data, shared)]
    counts = Counter(run.folder for run in runs)
    for folder, times in counts.items():
        if times > 1:
            raise BadInput(f"{folder} is given twice.")
    return runs


def _inside(folder: Path, data: Path, load: trained.Load) -> list[Finished]:
    here = folder.resolve()
    homes = _homes(here)
    if not homes:
        raise BadInput(
            f"{folder} is no run folder of flatmin compare or flatmin train, and none "
            "that holds some, such as runs/figure1."
        )
    runs = [run for home in homes for run in _of(home, here, data, load)]
    if not runs:
        raise BadInput(
            f"{folder} holds no finished run. The command that began it continues it."
        )
    return runs


def _homes(here: Path) -> list[Path]:
    """The folders with a ``config.json``: this one, those below, or one above it."""
    if (here / "config.json").is_file():
        return [here]
    # Elsewhere, "below" can be a whole disk.
    if any(_has_runs(folder) for folder in (here, *here.parents)):
        below = [path.parent for path in here.rglob("config.json")]
        if below:
            return sorted(below, key=_by_number)
    # The depth of a run in its comparison.
    above = list(here.parents)[:3]
    return [folder for folder in above if (folder / "config.json").is_file()][:1]


def _has_runs(folder: Path) -> bool:
    """Whether ``flatmin train`` has written its runs here."""
    return next(folder.glob("recipe-*.json"), None) is not None


def _by_number(path: Path) -> list[str | int]:
    """Order in which 10 comes after 9."""
    words = re.split(r"(\d+)", str(path))
    return [int(word) if word.isdigit() else word for word in words]


def _of(home: Path, here: Path, data: Path, load: trained.Load) -> list[Finished]:
    stored = read_json(home / "config.json")
    if not isinstance(stored, dict) or "experiment" not in stored:
        return comparison.finished(home, stored, here)
    if not home.is_relative_to(here):
        return []  # What lies inside of a run, such as Bootstrap's teacher, is none.
    return trained.finished(home, stored, data, load)

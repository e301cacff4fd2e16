"""Processes of this machine that share the runs of a comparison."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from flatmin.experiments.compare.place import Place, read_place
from flatmin.experiments.compare.search import train_all
from flatmin.experiments.errors import BadInput
from flatmin.experiments.launch import launched
from flatmin.experiments.progress import bars
from flatmin.experiments.readers import end_with_parent

#: Most processes by default, and most that ``--workers`` can ask for.
_ENOUGH, _MOST = 4, 64


def checked(processes: int | None) -> int:
    """Return how many processes share the work.

    By default one per core, at most 4, or one in all with a GPU.

    Raises:
        BadInput: the number that was given is out of range.
    """
    if processes is None:
        return 1 if torch.accelerator.is_available() else _cores()
    if not 1 <= processes <= _MOST:
        raise BadInput(f"--workers must be from 1 to {_MOST}, got {processes}.")
    return processes


def _cores() -> int:
    return min(os.cpu_count() or 1, _ENOUGH)


@contextmanager
def helping(processes: int, place: Place) -> Iterator[None]:
    """Let other processes train runs of a comparison, within the block.

    They end with this process, even if it is killed. Each has as many threads as this
    one.

    Args:
        processes: besides this one.
        place: of the comparison, whose file is written already.
    """
    context = multiprocessing.get_context("spawn")
    arguments = (place.root, place.data, torch.get_num_threads())
    helpers = [
        # Daemons may not start the processes that read pictures.
        context.Process(target=_help, args=arguments, daemon=False)
        for _ in range(processes)
    ]
    for helper in helpers:
        helper.start()
    try:
        yield
    finally:
        for helper in helpers:
            helper.terminate()
            helper.join()


def _help(root: Path, data: Path, threads: int) -> None:
    # On Ctrl-C, the first process ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(threads)
    what, place = read_place(root, data)
    fabric = launched(what.experiment)
    with bars(Console(quiet=True)) as progress:
        train_all(fabric, what, place, progress)

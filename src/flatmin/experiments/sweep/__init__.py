"""``flatmin sweep``: the search for rho, shared by any number of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from flatmin.experiments.errors import BadInput
from flatmin.experiments.jobs import Job, Request, train_job
from flatmin.experiments.launch import launched, share_of_threads, world_size
from flatmin.experiments.progress import bars
from flatmin.experiments.readers import end_with_input
from flatmin.experiments.runs.asked import point_folder, sweep_folder
from flatmin.experiments.runs.files import Busy
from flatmin.experiments.sweep._grid import Point, grid
from flatmin.experiments.sweep._report import report
from flatmin.experiments.sweep._storage import FAILURES, refusal
from flatmin.experiments.sweep._study import Study
from flatmin.experiments.tasks import task_of

__all__ = ["sweep"]

#: The environment variable in place of ``--storage``, whose URL may hold a password.
STORAGE = "FLATMIN_STORAGE"

#: The environment variable of helpers, whose standard input the first process holds.
HELPER = "FLATMIN_HELPER"

#: Most processes; a larger number is a typing error.
_MOST = 256

#: Seconds between two looks at the helpers.
_EVERY = 0.5

#: How long a helper may take to end after an interrupt, in seconds.
_PATIENCE = 10.0

_Helpers = list[subprocess.Popen[bytes]]


def sweep(
    request: Request, console: Console, storage: str | None = None, workers: int = 1
) -> bool:
    """Train what is left of a sweep, and print what was found.

    Any number of processes may call this at the same time, on one machine or, with a
    ``storage`` that all of them reach, on several.

    Args:
        request: a cell, settings, and where things are.
        console: to print on.
        storage: URL of the data base; None for an SQLite file in the sweep's folder.
        workers: processes of this machine, with this one; at most one is used for each
            point that is left.

    Returns:
        Whether all points are trained.

    Raises:
        BadInput: cell, settings, data, folders or data base do not fit.
    """
    if HELPER in os.environ:
        end_with_input()
    if world_size() > 1:
        raise BadInput(
            "a sweep trains each point in one process; start it without torchrun, "
            "with --workers N."
        )
    if not 1 <= workers <= _MOST:
        raise BadInput(f"workers: must be from 1 to {_MOST}, got {workers}.")
    what = grid(request)
    home = sweep_folder(request.root, what.cell)
    try:
        study = Study(what, home, storage)
        left = sum(not one.errors for one in study.standings())
        started = _helpers(request, storage, min(workers, left))
        with bars(console) as progress, started as helpers:
            _train(request, study, home, helpers, progress)
        return report(what, study.standings(), request, home, console)
    except FAILURES as error:
        raise refusal(storage, error) from None


def _train(
    request: Request, study: Study, home: Path, helpers: _Helpers, progress: Progress
) -> None:
    """Train one point after the other, until only other commands have points left."""

    def train(point: Point) -> list[float]:
        errors: list[float] = []
        for seed in range(study.grid.seeds):
            folder = point_folder(home, point) / f"seed-{seed}"
            job = Job(study.grid.experiment(point, seed), folder)
            result = train_job(fabric, job, request, progress)
            if result is None:
                raise Busy(f"another process is training {folder}.")
            errors.append(result[task_of(study.grid.arm).score])
        return errors

    fabric = launched(study.grid.arm)
    task = progress.add_task(study.grid.cell.name, total=None, note="")
    more = True
    while more:
        found = study.standings()
        done = sum(bool(one.errors) for one in found)
        progress.update(task, completed=done, total=len(found))
        helped = any(helper.poll() is None for helper in helpers)
        more = study.take(train)
        if helped and not more:
            # Stay: a helper that is killed leaves a point to train.
            time.sleep(_EVERY)
            more = True


@contextmanager
def _helpers(request: Request, storage: str | None, n: int) -> Iterator[_Helpers]:
    """Start ``n - 1`` helpers for a sweep; they are stopped at the end of the block.

    They end with this process too, even if it is killed.
    """
    helpers = [
        subprocess.Popen(
            command(request),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(k, n, storage),
        )
        for k in range(1, n)
    ]
    try:
        with share_of_threads(max(n, 1)):
            yield helpers
    finally:
        for helper in helpers:
            if helper.poll() is None:
                helper.send_signal(signal.SIGINT)
        for helper in helpers:
            _end(helper)
            if helper.stdin is not None:
                helper.stdin.close()


def _end(helper: subprocess.Popen[bytes]) -> None:
    """Wait for a helper that was interrupted; kill it if it goes on.

    Programs started in the background of a script ignore interrupts. A run that is
    killed continues from its last checkpoint.
    """
    try:
        helper.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        helper.kill()
        helper.wait()


def command(request: Request) -> list[str]:
    """Return the command line of a helper."""
    words = [sys.executable, "-m", "flatmin", "sweep", request.name, "--workers=1"]
    words += [f"--out={request.root}", f"--data={request.data}"]
    words += [f"--set={setting}" for setting in request.settings]
    return [*words, *(["--smoke"] if request.small else [])]


def environment(k: int, n: int, storage: str | None) -> dict[str, str]:
    """Return the environment of process ``k`` of ``n``: a share of the cores, a GPU."""
    cores = max((os.cpu_count() or 1) // n, 1)
    mine = {"OMP_NUM_THREADS": str(cores), **os.environ, HELPER: "1"}
    if torch.cuda.is_available():
        known = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = known.split(",") if known else range(torch.cuda.device_count())
        mine["CUDA_VISIBLE_DEVICES"] = str(gpus[k % len(gpus)])
    return mine if storage is None else {**mine, STORAGE: storage}

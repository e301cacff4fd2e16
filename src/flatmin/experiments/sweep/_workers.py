"""Several processes of one machine at one sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

from rich.console import Console

from flatmin.experiments.errors import BadInput
from flatmin.experiments.progress import bars
from flatmin.experiments.runs import Order
from flatmin.experiments.sweep._queue import Queue
from flatmin.experiments.sweep._table import words

#: The environment variable that ``--storage`` can be given in: it may hold a password.
STORAGE = "FLATMIN_STORAGE"

#: Seconds between two looks at the study.
_EVERY = 0.5

#: A process, and what it says on stderr.
_Worker = tuple[subprocess.Popen[str], IO[str]]


def train_together(
    order: Order, queue: Queue, storage: str | None, n: int, console: Console
) -> None:
    """Let ``n`` processes train what is left of a sweep.

    Each is the command itself with ``--workers 1``. They end with this one, and with
    the first of them that refuses its input.

    Raises:
        BadInput: one did, or was killed.
    """
    with _started(order, storage, n) as workers, bars(console) as progress:
        name = queue.grid.cell.name
        task = progress.add_task(name, total=len(queue.standings()), note="")
        seen = {words(one.point) for one in queue.standings() if one.errors}
        running = True
        while running:
            running = any(process.poll() is None for process, _ in workers)
            _check(workers, running=running)
            for one in queue.standings():
                if one.errors and words(one.point) not in seen:
                    seen.add(words(one.point))
                    mean = sum(one.errors) / len(one.errors)
                    text = f"{words(one.point)}: validation error {mean:.2f} %"
                    progress.console.print(text, highlight=False)
            progress.update(task, completed=len(seen))
            if running:
                time.sleep(_EVERY)


@contextmanager
def _started(order: Order, storage: str | None, n: int) -> Iterator[list[_Worker]]:
    with ExitStack() as stack:
        workers: list[_Worker] = []
        for k in range(n):
            said = stack.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen(
                command(order),
                stdout=subprocess.DEVNULL,
                stderr=said,
                text=True,
                env=environment(k, n, storage),
            )
            stack.callback(_end, process)
            workers.append((process, said))
        yield workers


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.wait()


def _check(workers: list[_Worker], *, running: bool) -> None:
    """Raise what a worker said; of one that was killed, when the others are done."""
    for process, said in workers:
        code = process.poll()
        if code is not None and code > 0:
            said.seek(0)
            lines = said.read().splitlines() or [f"a worker ended with code {code}."]
            raise BadInput(lines[-1].removeprefix("flatmin: "))
        if code is not None and code < 0 and not running:
            name = signal.Signals(-code).name
            raise BadInput(
                f"a worker was killed ({name}). The same command continues its point."
            )


def command(order: Order) -> list[str]:
    """One worker's command line."""
    words = [sys.executable, "-m", "flatmin", "sweep", order.name, "--workers=1"]
    words += [f"--out={order.root}", f"--data={order.data}"]
    words += [f"--set={setting}" for setting in order.settings]
    return [*words, *(["--smoke"] if order.small else [])]


def environment(k: int, n: int, storage: str | None) -> dict[str, str]:
    """Of worker ``k`` of ``n``: its share of the processor cores, and a GPU."""
    import torch

    cores = max((os.cpu_count() or 1) // n, 1)
    mine = {"OMP_NUM_THREADS": str(cores), **os.environ}
    if torch.cuda.is_available():
        known = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = known.split(",") if known else range(torch.cuda.device_count())
        mine["CUDA_VISIBLE_DEVICES"] = str(gpus[k % len(gpus)])
    if storage is not None:
        mine[STORAGE] = storage
    return mine

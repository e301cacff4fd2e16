"""Two processes that keep running, so that only one check waits for their start."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import pickle
import tempfile
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from flatmin.conformance._check import Wrong, first_line

WORLD_SIZE = 2
TIMEOUT = 60.0

Job = Callable[..., Any]


class Ranks:
    """The processes of a gloo group, which run functions of modules."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="flatmin-ranks-")
        context = mp.get_context("spawn")
        pipes = [context.Pipe() for _ in range(WORLD_SIZE)]
        self._ends: list[Any] = [here for here, _ in pipes]
        self._processes = [
            context.Process(target=_serve, args=(rank, self._folder.name, there))
            for rank, (_, there) in enumerate(pipes)
        ]
        for process in self._processes:
            process.daemon = True
            process.start()

    def _whereabouts(self, rank: int) -> str:
        """Name the innermost functions that a rank was in shortly before."""
        path = _stack_file(self._folder.name, rank)
        lines = path.read_text().splitlines() if path.exists() else []
        inner = [line.rpartition(" in ")[2] for line in lines if " in " in line][:4]
        return f"; it is in {' < '.join(inner)}" if inner else ""

    def run(self, request: bytes, patience: float) -> list[Any]:
        """Return the ranks' answers: pairs of success and result, or error message."""
        answers: list[Any] = []
        for end in self._ends:
            end.send_bytes(request)
        for rank, end in enumerate(self._ends):
            if not end.poll(patience):
                raise Wrong(
                    f"rank {rank} does not answer within {patience:g} s"
                    f"{self._whereabouts(rank)}"
                )
            try:
                answers.append(end.recv())
            except EOFError:
                raise Wrong(f"rank {rank} died") from None
        return answers

    def kill(self) -> None:
        """End the processes at once."""
        for process in self._processes:
            process.kill()
            process.join()
        for end in self._ends:
            end.close()
        self._folder.cleanup()


_running: list[Ranks] = []


def on_ranks(job: Job, *arguments: object, patience: float = TIMEOUT) -> list[Any]:
    """Run ``job(rank, *arguments)`` on two ranks; return the results by rank.

    The first call starts the processes, and later calls use them again. A failure ends
    them, because one rank's error may leave the other waiting.

    Raises:
        Wrong: a rank raised, died, or did not answer in time.
    """
    try:
        request = pickle.dumps((job, arguments, patience))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise Wrong(f"adapters are functions of a module: {error}") from None
    if not _running:
        _running.append(Ranks())
    answers: list[Any] = []
    try:
        answers = _running[0].run(request, patience)
        bad = [message for fine, message in answers if not fine]
        if bad:
            raise Wrong(bad[0])
    except BaseException:
        stop_ranks()
        raise
    return [answer for _, answer in answers]


def stop_ranks() -> None:
    """End the processes; the next `on_ranks` starts new ones."""
    while _running:
        _running.pop().kill()


atexit.register(stop_ranks)


def _serve(rank: int, folder: str, requests: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{Path(folder) / 'meeting-point'}",
        rank=rank,
        world_size=WORLD_SIZE,
        timeout=timedelta(seconds=TIMEOUT),
    )
    with contextlib.suppress(EOFError), _stack_file(folder, rank).open("w") as stack:
        while True:
            requests.send(_answer(rank, requests.recv_bytes(), stack))


def _answer(rank: int, request: bytes, stack: IO[str]) -> tuple[bool, Any]:
    try:
        job, arguments, patience = pickle.loads(request)
        faulthandler.dump_traceback_later(0.8 * patience, file=stack)
        torch.manual_seed(0)
        return True, job(rank, *arguments)
    except Exception as error:
        return False, first_line(error)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _stack_file(folder: str, rank: int) -> Path:
    return Path(folder) / f"stack-{rank}"

"""Real processes that stay up: a test does not pay for importing torch."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORLD_SIZE = 2
TIMEOUT = 60

#: A run of a named defect is a fork itself, with torch loaded and nothing done yet.
_START = "fork" if "FLATMIN_UNDER_TEST" in os.environ else "spawn"


class Ranks:
    """Runs functions on all ranks of a gloo group."""

    def __init__(self, meeting_point: Path, world_size: int = WORLD_SIZE) -> None:
        context: Any = mp.get_context(_START)
        pipes = [context.Pipe() for _ in range(world_size)]
        self._ends: list[Any] = [here for here, _ in pipes]
        self._processes = [
            context.Process(
                target=_serve, args=(rank, world_size, str(meeting_point), there)
            )
            for rank, (_, there) in enumerate(pipes)
        ]
        for process in self._processes:
            process.start()

    def run(self, job: Callable[..., Any], *arguments: object) -> list[Any]:
        """``job(rank, *arguments)`` on each rank; their results in order of rank."""
        for end in self._ends:
            end.send((job, arguments))
        answers = []
        for rank, end in enumerate(self._ends):
            assert end.poll(2 * TIMEOUT), f"rank {rank} does not answer: {job.__name__}"
            answers.append(end.recv())
        for rank, (fine, answer) in enumerate(answers):
            assert fine, f"rank {rank}:\n{answer}"
        return [answer for _, answer in answers]

    def close(self) -> None:
        """End the processes."""
        for end in self._ends:
            end.send(None)
        for process in self._processes:
            process.join(TIMEOUT)
            process.kill()


def _serve(
    rank: int, world_size: int, meeting_point: str, requests: Connection
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting_point}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=TIMEOUT),
    )
    while (request := requests.recv()) is not None:
        job, arguments = request
        try:
            requests.send((True, job(rank, *arguments)))
        except BaseException:
            requests.send((False, traceback.format_exc()))
    dist.destroy_process_group()

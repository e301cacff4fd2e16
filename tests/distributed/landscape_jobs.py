"""What the ranks do in tests/distributed/test_landscape.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from flatmin.diagnostics import Objective, _grid, directions, landscape
from tests.diagnostics.small import convnet, dense, images, pictures


def objective_of(name: str, **options: Any) -> Objective:
    return {"dense": dense, "pictures": pictures}[name](**options)


def shared_points(
    rank: int, name: str, points: int, file: str | None
) -> dict[str, Any]:
    """The whole plane, as each rank has it."""
    del rank
    _grid._MOST_STACKED = 4
    objective = objective_of(name)
    u, v = (directions.random(objective, seed) for seed in (0, 1))
    plane = landscape.plane(
        objective, u, v, a=landscape.axis(points), ranks=dist.group.WORLD, file=file
    )
    return plane.to_dict()


def interrupted(rank: int, name: str, file: str) -> list[int]:
    """The points that were done when the progress callback has stopped both ranks."""
    del rank
    _grid._MOST_STACKED = 4
    objective = objective_of(name)
    u, v = (directions.random(objective, seed) for seed in (0, 1))
    seen: list[int] = []

    def progress(done: int, _: int) -> None:
        seen.append(done)
        if done > 10:
            raise InterruptedError

    try:
        landscape.plane(
            objective, u, v, a=landscape.axis(5), ranks=dist.group.WORLD, file=file,
            progress=progress,
        )  # fmt: skip
    except InterruptedError:
        dist.barrier()
    return seen


def shared_data(rank: int) -> list[list[float]]:
    """Each rank holds a part of the images."""
    part = images()[:2] if rank == 0 else images()[2:]
    objective = Objective(convnet(), cross_entropy, part, group=dist.group.WORLD)
    u, v = (directions.random(objective, seed) for seed in (0, 1))
    plane = landscape.plane(objective, u, v, a=landscape.axis(3))
    return [list(row) for row in plane.losses]


def refusals(rank: int, file: str) -> list[str]:
    """What both ranks say if one of them is different, or has another file."""
    said: list[str] = []
    objective = dense()
    u = directions.random(objective, seed=0)
    other = directions.random(objective, seed=rank)
    for direction, path in ((other, None), (u, file)):
        try:
            landscape.line(objective, direction, ranks=dist.group.WORLD, file=path)
        except ValueError as error:
            said.append(str(error))
    assert Path(file).read_text() == "{}"
    assert torch.get_num_threads() == 1
    return said

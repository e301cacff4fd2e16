"""One process's part in a sweep."""

from __future__ import annotations

from pathlib import Path

from lightning_fabric import Fabric
from optuna.exceptions import StorageInternalError
from rich.console import Console
from rich.progress import Progress

from flatmin.experiments.errors import BadInput
from flatmin.experiments.folders import point_folder, sweep_folder
from flatmin.experiments.processes import launched, world_size
from flatmin.experiments.progress import bars
from flatmin.experiments.runs import Job, Order, train_job
from flatmin.experiments.store import Busy
from flatmin.experiments.sweep._grid import Grid, Point, grid
from flatmin.experiments.sweep._queue import Queue
from flatmin.experiments.sweep._table import report
from flatmin.experiments.sweep._workers import train_together


def sweep(
    order: Order, console: Console, storage: str | None = None, workers: int = 1
) -> bool:
    """Train what is left of a sweep, and say what was found.

    Any number of processes may do so at the same time, on one machine or, with a
    ``storage`` that all of them reach, on several.

    Args:
        order: a cell, settings, and where things are.
        console: to print on.
        storage: URL of the data base; None for an SQLite file in the sweep's folder.
        workers: processes to start on this machine; 1 for this one alone.

    Returns:
        Whether all points are trained.

    Raises:
        BadInput: cell, settings, data, folders or data base do not fit.
    """
    if world_size() > 1:
        raise BadInput(
            "a sweep trains each point in one process; start it without torchrun, "
            "with --workers N."
        )
    what = grid(order)
    home = sweep_folder(order.root, what.cell)
    try:
        queue = Queue(what, lambda point: point_folder(home, point), home, storage)
        queue.fill()
        if workers > 1:
            train_together(order, queue, storage, workers, console)
        else:
            _train_alone(queue, order, home, console)
        return report(what, queue.standings(), order, home, console)
    except StorageInternalError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise BadInput(
            f"the data base of the sweep failed: {reason}. The same command continues."
        ) from None


def _train_alone(queue: Queue, order: Order, home: Path, console: Console) -> None:
    """Train one point after the other, until none is left or others are at them."""
    fabric, more = launched(queue.grid.arm), True
    with bars(console) as progress:
        everything = progress.add_task(queue.grid.cell.name, total=None, note="")
        while more:
            queue.fill()
            standings = queue.standings()
            done = sum(bool(one.errors) for one in standings)
            progress.update(everything, completed=done, total=len(standings))
            with queue.turn() as turn:
                more = turn is not None
                if turn is not None:
                    folder = point_folder(home, turn.point)
                    jobs = _jobs(queue.grid, turn.point, folder)
                    turn.finish([_error(fabric, job, order, progress) for job in jobs])


def _jobs(what: Grid, point: Point, folder: Path) -> list[Job]:
    """The runs of a point."""
    return [
        Job(what.experiment(point, seed), folder / f"seed-{seed}")
        for seed in range(what.seeds)
    ]


def _error(fabric: Fabric, job: Job, order: Order, progress: Progress) -> float:
    """The validation error of a run, per cent."""
    result = train_job(fabric, job, order, progress)
    if result is None:
        raise Busy(f"another process is training {job.folder}.")
    return result["test_error"]

"""``flatmin train``: all runs of a recipe, or what is left of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import Progress

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import (
    SETS,
    DataSet,
    images_of,
    load,
    made_up_images,
)
from flatmin.experiments.errors import expanded
from flatmin.experiments.launch import launched
from flatmin.experiments.progress import Bar, bars
from flatmin.experiments.recipes import Recipe, changed, recipe, smoke
from flatmin.experiments.runs.asked import Asked, run_folder, sign
from flatmin.experiments.runs.files import Busy, check_outside, locked
from flatmin.experiments.runs.record import Run
from flatmin.experiments.table import counted
from flatmin.experiments.tasks import diverged, task_of
from flatmin.experiments.train import Training, finished


@dataclass(frozen=True, slots=True)
class Request:
    """What ``flatmin train`` was asked for.

    Attributes:
        name: of a recipe, or of a part of it: ``table4/noise-40``.
        settings: ``field=value``.
        small: whether the recipe is made as small as possible, on made-up images.
        root: where the folders of runs are.
        data: where the data sets are.
    """

    name: str
    settings: tuple[str, ...] = ()
    small: bool = False
    root: Path = Path("runs")
    data: Path = Path("data")

    def __post_init__(self) -> None:
        # What was asked for is stored and compared by name: "table4/" is "table4".
        object.__setattr__(self, "name", self.name.rstrip("/"))

    def recipe(self) -> Recipe:
        """The recipe, with these settings.

        Raises:
            BadInput: there is none, or a setting is refused.
        """
        found = recipe(self.name)
        return changed(smoke(found) if self.small else found, self.settings)


@dataclass(frozen=True, slots=True)
class Job:
    """A run: what, and where.

    Attributes:
        experiment: what is trained.
        folder: where.
        twin: the same without an average of its weights, which comes out of the same
            training; None if it is not wanted.
    """

    experiment: Experiment
    folder: Path
    twin: Job | None = None


def jobs(what: Recipe, root: Path) -> list[Job]:
    """The runs of a recipe, seed by seed, so that an early look sees every cell."""
    found: dict[Path, Job] = {}
    for seed in range(what.seeds):
        for cell in what.cells:
            for arm in cell.arms:
                folder = run_folder(root, cell, arm, seed)
                experiment = arm.model_copy(update={"seed": seed})
                found.setdefault(folder, Job(experiment, folder))
    return list(found.values())


def train_all(request: Request, console: Console) -> bool:
    """Train what is left of a recipe's runs, one after the other.

    A run that another process is training is left to that process, so that the same
    command in several places shares the work.

    Returns:
        Whether all runs are finished.

    Raises:
        BadInput: settings, data or folders do not fit.
    """
    what = request.recipe()
    todo = jobs(what, request.root)
    fabric = launched(todo[0].experiment)
    console.quiet = not fabric.is_global_zero
    done = 0
    with bars(console) as progress:
        everything = progress.add_task(what.name, total=len(todo), note="")
        for job in todo:
            with _claimed(fabric, job, request) as run:
                if run is not None:
                    _sign(fabric, request, what)
                    run.train(progress)
                    done += 1
            progress.advance(everything)
    if done < len(todo):
        left = counted(len(todo) - done, "run")
        console.print(f"Left to other processes: {left}.")
    return done == len(todo)


def train_job(
    fabric: Fabric, job: Job, request: Request, progress: Progress
) -> dict[str, Any] | None:
    """Train a run, or what is left of it.

    Returns:
        Its result; None if another process is training it.

    Raises:
        BadInput: settings, data or folder do not fit.
    """
    with _claimed(fabric, job, request) as run:
        return None if run is None else run.train(progress)


def _sign(fabric: Fabric, request: Request, what: Recipe) -> None:
    """Store what `flatmin report` has to know."""
    if not fabric.is_global_zero:
        return
    asked = Asked(
        recipe=what.name,
        part=request.name,
        settings=request.settings,
        smoke=request.small,
        seeds=what.seeds,
    )
    sign(request.root, asked)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run whose folder this process holds: its result, or the training to do."""

    job: Job
    name: str
    left: Training | dict[str, Any]
    twin: Path | None

    def train(self, progress: Progress) -> dict[str, Any]:
        bar = Bar(progress, self.name)
        left, folder = self.left, self.job.folder
        result = left if isinstance(left, dict) else left.run(folder, bar, self.twin)
        kind = "validation" if self.job.experiment.validation else "test"
        task, seconds = task_of(self.job.experiment), result["seconds"]
        said = task.said(kind, result[task.score])
        if diverged(result):
            said += ", diverged (its loss is not finite)"
        bar.close(f"{self.name}: {said}, {seconds:.1f} s")
        return result


@contextmanager
def _claimed(fabric: Fabric, job: Job, request: Request) -> Iterator[_Run | None]:
    """Hold the folder of a run and yield the run; None if another process holds it.

    Data, network and method are built before anything is written to the folder.
    """
    if job.experiment.data not in SETS:
        check_outside(job.folder, expanded(job.experiment.data))
    # One process alone downloads or makes up images.
    with fabric.rank_zero_first():
        data = data_of(job.experiment, request)
    left = finished(fabric, job.folder) or Training(fabric, job.experiment, data)
    with ExitStack() as stack:
        if not _held(fabric, job, data, stack):
            yield None
            return
        twin = job.twin
        if twin is not None and finished(fabric, twin.folder):
            twin = None
        with_twin = twin is not None and _held(fabric, twin, data, stack)
        name = str(job.folder.relative_to(request.root))
        yield _Run(job, name, left, twin.folder if twin and with_twin else None)


def _held(fabric: Fabric, job: Job, data: DataSet, stack: ExitStack) -> bool:
    """Hold the folder of a run until the stack closes; False if another process does.

    Raises:
        BadInput: the folder holds another experiment, or something else.
    """
    free = True
    if fabric.is_global_zero:
        try:
            stack.enter_context(locked(job.folder))
            Run(job.folder).claim(job.experiment, data, fabric.world_size)
        except Busy:
            free = False
    return bool(fabric.broadcast(free))


def data_of(experiment: Experiment, request: Request) -> DataSet:
    """Return the data that an experiment trains and tests on.

    Raises:
        BadInput: it is not there, or too small.
    """
    if request.small and experiment.data in SETS:
        return made_up_images(experiment)
    return images_of(experiment, request.data, _loaded)


@lru_cache(maxsize=1)
def _loaded(name: str, root: Path, size: int | None) -> DataSet:
    return load(name, root, size)

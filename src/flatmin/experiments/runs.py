"""``flatmin train``: all runs of a recipe, or what is left of them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import Progress

from flatmin.experiments.datasets import SETS, DataSet, images_of, load
from flatmin.experiments.datasets.tiny import TINY, write_tiny
from flatmin.experiments.experiment import Experiment
from flatmin.experiments.folders import run_folder
from flatmin.experiments.processes import launched
from flatmin.experiments.progress import bars, note
from flatmin.experiments.recipes import Recipe, changed, recipe, smoke
from flatmin.experiments.run import train
from flatmin.experiments.store import Busy, claim, in_turn, locked, write_json


@dataclass(frozen=True, slots=True)
class Order:
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

    def recipe(self) -> Recipe:
        """The recipe, with these settings.

        Raises:
            BadInput: there is none, or a setting is refused.
        """
        found = recipe(self.name)
        return changed(smoke(found) if self.small else found, self.settings)


@dataclass(frozen=True, slots=True)
class Job:
    """A run of a recipe: what, and where."""

    experiment: Experiment
    folder: Path


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


def train_all(order: Order, console: Console) -> bool:
    """Train what is left of a recipe's runs, one after the other.

    Runs that another process is training at the moment are left to it, so that the
    same command in several places shares the work.

    Returns:
        Whether all runs are finished.

    Raises:
        BadInput: settings, data or folders do not fit.
    """
    what = order.recipe()
    todo = jobs(what, order.root)
    fabric = launched(todo[0].experiment)
    console.quiet = not fabric.is_global_zero
    if fabric.is_global_zero:
        _sign(order, what)
    finished = 0
    with bars(console) as progress:
        everything = progress.add_task(what.name, total=len(todo), note="")
        for job in todo:
            result = train_job(fabric, job, order, progress)
            finished += result is not None
            progress.advance(everything)
    if finished < len(todo):
        console.print(f"{len(todo) - finished} runs are left to other processes.")
    return finished == len(todo)


def _sign(order: Order, what: Recipe) -> None:
    """Leave what `flatmin report` has to know."""
    name = what.name
    asked = {"recipe": name, "part": order.name, "settings": list(order.settings)}
    record = {**asked, "smoke": order.small, "seeds": what.seeds}
    # Another process may be starting with the same recipe.
    with in_turn(order.root):
        write_json(order.root / f"recipe-{name}.json", record)


def train_job(
    fabric: Fabric, job: Job, order: Order, progress: Progress
) -> dict[str, Any] | None:
    """Train a run, or what is left of it.

    Returns:
        Its result; None if another process is at it.

    Raises:
        BadInput: settings, data or folder do not fit.
    """
    with ExitStack() as stack:
        free = True
        if fabric.is_global_zero:
            try:
                stack.enter_context(locked(job.folder))
            except Busy:
                free = False
        if not fabric.broadcast(free):
            return None
        # Whoever downloads or makes up images must be alone.
        with fabric.rank_zero_first():
            data = data_of(job.experiment, order)
        if fabric.is_global_zero:
            settings = job.experiment.model_dump(mode="json")
            mine = {"experiment": settings, "data_sha256": data.digest()}
            claim(job.folder, {**mine, "world": fabric.world_size})
        fabric.barrier()
        return _watched(fabric, job, data, order.root, progress)


def _watched(
    fabric: Fabric, job: Job, data: DataSet, root: Path, progress: Progress
) -> dict[str, Any]:
    name = str(job.folder.relative_to(root))
    task = progress.add_task(name, total=None, note="")

    def watch(line: dict[str, Any]) -> None:
        progress.update(task, note=note(line), refresh=True)

    def tick(step: int, steps: int) -> None:
        progress.update(task, completed=step, total=steps)

    result = train(fabric, job.experiment, data, job.folder, watch, tick)
    progress.remove_task(task)
    kind = "validation" if job.experiment.validation else "test"
    error, seconds = result["test_error"], result["seconds"]
    progress.console.print(
        f"{name}: {kind} error {error:.2f} %, {seconds:.1f} s", highlight=False
    )
    return result


def data_of(experiment: Experiment, order: Order) -> DataSet:
    """What an experiment trains and tests on.

    Raises:
        BadInput: it is not there, or too small.
    """
    root = order.data
    if order.small and experiment.data in SETS:
        root = order.root / "tiny"
        with in_turn(root):
            # Another process may be reading what is there.
            if not (root / experiment.data / TINY).is_file():
                write_tiny(experiment.data, root)
    return images_of(experiment, root, _loaded)


@lru_cache(maxsize=1)
def _loaded(name: str, root: Path, size: int | None) -> DataSet:
    return load(name, root, size)

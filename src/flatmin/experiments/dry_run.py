"""``flatmin train --dry-run``: what a recipe would take on this machine."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from flatmin.experiments.config import Experiment
from flatmin.experiments.cost import Estimate, Images, Meter, estimate, steps_of
from flatmin.experiments.datasets import SETS, check_first, check_kind
from flatmin.experiments.errors import BadInput
from flatmin.experiments.jobs import Request, data_of, jobs
from flatmin.experiments.launch import launched
from flatmin.experiments.table import counted

_COLUMNS = (
    "runs of one seed",
    "parameters",
    "steps",
    "gradients",
    "training",
    "tests",
)


def dry_run(request: Request, console: Console) -> None:
    """Print the configuration of a recipe and what its runs would take.

    No run is written: the timed steps are on random images of the right shape. Of data
    sets only folders of images are read, as training would. Reading files comes on top.

    Raises:
        BadInput: settings do not fit; nothing was printed then.
    """
    what = request.recipe()
    todo = jobs(what, request.root)
    each = [job for job in todo if job.experiment.seed == 0]
    images = [images_of(job.experiment, request) for job in each]
    for job, there in zip(each, images, strict=True):
        steps_of(job.experiment, there)
    first = todo[0].experiment
    fabric = launched(first)
    console.quiet = not fabric.is_global_zero
    console.print(first.model_dump_json(indent=2), highlight=False, markup=False)
    runs = counted(len(todo), "run")
    console.print(f"{what.name}: {runs}. Scale: {what.scale}.", markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in _COLUMNS:
        left = name == _COLUMNS[0]
        table.add_column(name, justify="left" if left else "right", no_wrap=not left)
    meter, found = Meter(fabric), list[Estimate]()
    for job, there in zip(each, images, strict=True):
        cost = meter.cost(job.experiment, there)
        found.append(estimate(job.experiment, there, cost))
        name = str(job.folder.parent.relative_to(request.root))
        table.add_row(name, *_cells(found[-1]))
    console.print(table)
    seconds = sum(one.seconds + one.tests + one.measurements for one in found)
    bound = "at least " if any(one.at_least for one in found) else ""
    total = f"{bound}{duration(what.seeds * seconds)}"
    console.print(f"In all: {total}, one run after the other.", markup=False)


def images_of(experiment: Experiment, request: Request) -> Images:
    """Describe an experiment's examples, without reading known data sets.

    Raises:
        BadInput: the data is not there, or has too few examples.
    """
    if experiment.data not in SETS:
        return Images.of(data_of(experiment, request))
    source = SETS[experiment.data]
    check_kind(experiment, experiment.data, source.kind)
    train, test, horizon = source.train, source.test, experiment.horizon
    if experiment.validation and source.validation:
        test = source.validation
    if horizon is not None:
        train, test = train - experiment.lookback - horizon + 1, test - horizon + 1
    n, held = experiment.train_examples or train, 0
    try:
        check_first(n, train)
    except ValueError as error:
        raise BadInput(f"train_examples of {experiment.data}: {error}") from None
    if experiment.validation and not source.validation:
        held = round(n * experiment.validation)
    return Images(
        train=n - held,
        test=held or test,
        channels=source.channels,
        side=source.size,
        classes=source.classes,
        policy=source.policy,
    )


def _cells(found: Estimate) -> list[str]:
    numbers = (found.parameters, found.steps, found.gradient_examples)
    bound = "> " if found.at_least else ""
    times = (found.seconds, found.tests + found.measurements)
    words = [f"{bound}{duration(seconds)}" for seconds in times]
    return [*(f"{number:,}" for number in numbers), *words]


def duration(seconds: float) -> str:
    """Write a duration in days, hours, minutes or seconds."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"

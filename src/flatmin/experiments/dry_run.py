"""``flatmin train --dry-run``: what a recipe would take, from a few timed steps."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from flatmin.experiments.datasets import SETS, DataSet, Tensors
from flatmin.experiments.experiment import Experiment
from flatmin.experiments.feed import IMAGE_SIZE, Feed, Share
from flatmin.experiments.loop import Loop
from flatmin.experiments.processes import launched, world_size
from flatmin.experiments.runs import Order, data_of, jobs

#: Steps that are timed, after one that is not.
_STEPS = 3

#: Examples of a timed step, at most: times are taken as proportional to examples.
_MOST = 256


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one run takes.

    Attributes:
        parameters: of the network.
        steps: of the run.
        gradient_examples: over how many examples it takes gradients.
        seconds: of training, on the machine that was asked.
    """

    parameters: int
    steps: int
    gradient_examples: int
    seconds: float


def dry_run(order: Order, console: Console) -> None:
    """Print the configuration of a recipe and what its runs would take.

    Nothing is written and no data set is read: the timed steps are on random images
    of the right shape. Reading files, tests, and measurements come on top.

    Raises:
        BadInput: settings do not fit.
    """
    what = order.recipe()
    todo = jobs(what, order.root)
    first = todo[0].experiment
    fabric, total = launched(first), 0.0
    console.quiet = not fabric.is_global_zero
    console.print(first.model_dump_json(indent=2), highlight=False, markup=False)
    console.print(f"{what.name}: {len(todo)} runs. Scale: {what.scale}.", markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("runs of one seed", "parameters", "steps", "gradients", "time"):
        left = name.startswith("runs")
        table.add_column(name, justify="left" if left else "right", no_wrap=not left)
    for job in (job for job in todo if job.experiment.seed == 0):
        found = estimate(fabric, job.experiment, order)
        total += found.seconds * what.seeds
        table.add_row(
            str(job.folder.parent.relative_to(order.root)),
            f"{found.parameters:,}",
            f"{found.steps:,}",
            f"{found.gradient_examples:,}",
            duration(found.seconds),
        )
    console.print(table)
    console.print(f"In all: {duration(total)}, one run after the other.", markup=False)


def estimate(fabric: Fabric, experiment: Experiment, order: Order) -> Estimate:
    """What a run takes, by the time and the gradients of a few steps."""
    examples = _examples(experiment, order)
    per_epoch = examples // experiment.batch_size
    steps = experiment.steps_in_all(per_epoch) * (2 if experiment.bootstrap else 1)
    parameters, gradients, seconds = _timed(fabric, _short(experiment), order)
    in_all = steps * experiment.batch_size
    return Estimate(parameters, steps, round(gradients * in_all), seconds * in_all)


def _examples(experiment: Experiment, order: Order) -> int:
    """How many images are trained on."""
    if experiment.data in SETS:
        n = min(experiment.train_examples or math.inf, SETS[experiment.data].train)
        return round(n * (1 - experiment.validation))
    return len(data_of(experiment, order).train.y)


def _short(experiment: Experiment) -> Experiment:
    """What the time of an example depends on; fewer of them, and no download."""
    world = world_size()
    m = experiment.m or min(experiment.batch_size // world, _MOST)
    groups = max(min(experiment.batch_size // world, _MOST) // m, 1)
    options = {k: v for k, v in experiment.model_options.items() if k != "pretrained"}
    batch = {"batch_size": m * groups * world, "model_options": options}
    return experiment.model_copy(update=batch)


def _timed(
    fabric: Fabric, experiment: Experiment, order: Order
) -> tuple[int, float, float]:
    """Parameters; gradients and seconds per example of a step."""
    data = _made_up(experiment, order)
    share = Share(fabric.global_rank, fabric.world_size)
    feed = Feed(data, data.train.y, experiment, fabric.device, share)
    loop = Loop(fabric, experiment, len(data.classes), len(data.mean), _STEPS + 1)
    loop.train_mode()
    # The first step is slower than the others.
    loop.train_step(next(feed.train(0)))
    loop.looked_at()
    before, began = loop.gradient_examples, time.perf_counter()
    for step in range(_STEPS):
        loop.train_step(next(feed.train(step)))
    loop.looked_at()  # Waits for the device.
    seconds = time.perf_counter() - began
    examples = _STEPS * experiment.batch_size
    gradients = (loop.gradient_examples - before) / examples
    parameters = sum(p.numel() for p in loop.network.parameters())
    return parameters, gradients, seconds / examples


def _made_up(experiment: Experiment, order: Order) -> DataSet:
    """A batch of random images of the right shape."""
    if experiment.data in SETS:
        source = SETS[experiment.data]
        channels, classes = source.channels, source.classes
        side, policy = source.size, source.policy
    else:
        real = data_of(experiment, order)
        channels, classes = len(real.mean), len(real.classes)
        side, policy = None, real.policy
    side = experiment.image_size or side or IMAGE_SIZE
    shape = (experiment.batch_size, channels, side, side)
    x = torch.randint(256, shape, dtype=torch.uint8)
    images = Tensors(x, torch.arange(len(x)) % classes)
    names, half = tuple(map(str, range(classes))), (0.5,) * channels
    return DataSet("random", images, images, names, half, half, policy, "made up")


def duration(seconds: float) -> str:
    """In units that people use."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"

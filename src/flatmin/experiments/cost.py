"""Estimate what runs cost on this machine, from a few steps on made-up examples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from flatmin.experiments import augment, prepare
from flatmin.experiments.batches import IMAGE_SIZE, Batch, steps_of_epoch
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import (
    DataSet,
    Tensors,
    made_up_sentences,
    made_up_series,
    sentences_of,
    windows_of,
)
from flatmin.experiments.errors import BadInput
from flatmin.experiments.models import SCRATCH, input_size
from flatmin.experiments.train import Training

#: Most steps that are averaged, after a first one, which is slower.
_STEPS = 3

#: Most examples of a timed step: time is taken as proportional to examples.
_MOST = 256

#: Steps of a small network in which the gradients of a method are counted.
_COUNTED = 12

#: Assumed speed of networks, as a share of the speed of a matrix product.
_REACHED = 0.3

#: Assumed number of initial weights that are drawn in a second.
_DRAWN = 4e7

#: Assumed Hessian products for one eigenvalue and for five; each costs three gradients.
_PRODUCTS, _PRODUCTS_OF_FIVE = 20, 40


@dataclass(frozen=True, slots=True)
class Images:
    """The numbers and the shape of a data set's images, windows or sentences.

    Attributes:
        train: how many are trained on.
        test: how many are tested on.
        channels: of an image, or of the series; 0 of sentences.
        side: of an image, in pixels; None for files of any size, and for what has no
            pixels.
        classes: how many there are.
        policy: AutoAugment's, if there is one.
    """

    train: int
    test: int
    channels: int
    side: int | None
    classes: int
    policy: augment.Policy | None

    @classmethod
    def of(cls, data: DataSet) -> Images:
        """Take them from a loaded data set."""
        side = data.train.x.shape[-1] if isinstance(data.train, Tensors) else None
        n, test = len(data.train.y), len(data.test.y)
        return cls(n, test, len(data.mean), side, len(data.classes), data.policy)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a network and a method.

    Attributes:
        parameters: of the network.
        gradients: for each example of a step.
        seconds: for each gradient of an example.
        test: seconds to test an image, which is a forward pass in a larger batch.
        at_least: whether steps would have taken too long to time, so that ``seconds``
            is what arithmetic alone takes.
    """

    parameters: int
    gradients: float
    seconds: float
    test: float
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of one run.

    Attributes:
        parameters: of the network.
        steps: of the run.
        gradient_examples: over how many examples it takes gradients.
        seconds: of training.
        tests: seconds of all tests, about.
        measurements: seconds of sharpness and spectra, about.
        at_least: whether the seconds are a lower bound.
    """

    parameters: int
    steps: int
    gradient_examples: int
    seconds: float
    tests: float
    measurements: float
    at_least: bool = False


def steps_of(experiment: Experiment, images: Images) -> tuple[int, int]:
    """Return the steps of an epoch, and those of the whole run.

    Raises:
        BadInput: training would refuse these numbers.
    """
    per_epoch = steps_of_epoch(experiment, images.train)
    steps = experiment.steps_in_all(per_epoch)
    prepare.warmup_steps(experiment, per_epoch, steps)
    return per_epoch, steps


def estimate(experiment: Experiment, images: Images, cost: Cost) -> Estimate:
    """Estimate the cost of a run.

    Args:
        experiment: the run.
        images: that it trains and tests on.
        cost: of its network and method, from `Meter.cost`.

    Raises:
        BadInput: as `steps_of`.
    """
    per_epoch, steps = steps_of(experiment, images)
    twice = 2 if experiment.bootstrap else 1
    gradients = twice * steps * experiment.batch_size * cost.gradients
    tested = _tests(experiment, math.ceil(steps / per_epoch), images)
    passes = 0 if experiment.flatness_rho is None else 3 + 3 * _PRODUCTS
    passes += len(experiment.spectrum_at) * 3 * _PRODUCTS_OF_FIVE
    return Estimate(
        cost.parameters,
        twice * steps,
        round(gradients),
        gradients * cost.seconds,
        twice * tested * cost.test,
        # A gradient costs three forward passes.
        twice * passes * images.train * 3 * cost.test,
        cost.at_least,
    )


def _tests(experiment: Experiment, epochs: int, images: Images) -> int:
    """Count the examples of all tests of a run."""
    looks = set(range(0, epochs, experiment.evaluate_every)) - {0}
    looks |= {*experiment.spectrum_at, epochs}
    each = 1 if experiment.ema is None else 2
    return each * len(looks) * images.test + images.train


class Meter:
    """Times networks on this machine, until its own time is used up.

    Args:
        fabric: of the processes.
        budget: seconds for all that is timed.
        clock: the time in seconds.
    """

    def __init__(
        self,
        fabric: Fabric,
        budget: float = 6.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._fabric, self._clock = fabric, clock
        self._end = clock() + budget
        self._costs: dict[str, Cost] = {}
        self._works: dict[str, tuple[int, float]] = {}
        self._speeds: dict[str, float] = {}

    def cost(self, experiment: Experiment, images: Images) -> Cost:
        """Return the cost of an experiment's network and method.

        Raises:
            BadInput: they do not fit.
        """
        size = {"image_size": input_size(experiment), "weights": SCRATCH}
        one = experiment.model_copy(update=size)
        free = {"lr", "rho", "seed", "epochs", "length", "noise", "weight_decay"}
        key = f"{one.model_dump_json(exclude=free)} {images}"
        if key not in self._costs:
            self._costs[key] = self._cost(one, images)
        return self._costs[key]

    def _cost(self, experiment: Experiment, images: Images) -> Cost:
        world = self._fabric.world_size
        parameters, work = self._work(experiment, images)
        gradients = self._gradients(experiment, images)
        bound = work / self._speed(experiment.precision)
        left = self._fabric.broadcast(self._end - self._clock()) - parameters / _DRAWN
        most, few = (
            left * _REACHED / (bound * gradients),
            min(2, _group(experiment, world)),
        )
        if most < few:
            return Cost(parameters, gradients, bound, bound / 3, at_least=True)
        # Short of time, steps have few examples, and perhaps only one step is timed.
        examples = max(int(most / (1 + _STEPS)), few)
        short = _short(experiment, world, examples)
        seconds = self.gradient(
            Training(self._fabric, short, _made_up(short, images)), _STEPS
        )
        return Cost(parameters, gradients, seconds, seconds / 3)

    def _work(self, experiment: Experiment, images: Images) -> tuple[int, float]:
        """Count a network's parameters, and the operations of an example's gradient."""
        shape = _shape(experiment, images)
        outputs = experiment.horizon or images.classes
        key = f"{experiment.model} {experiment.model_options} {shape} {outputs}"
        if key not in self._works:
            self._works[key] = _counted(experiment, outputs, shape)
        return self._works[key]

    def _gradients(self, experiment: Experiment, images: Images) -> float:
        """Count the gradients per example of a step, with a small network instead."""
        values = {"model_options": {"width": 2}, "weights": None}
        small: dict[str, object]
        if experiment.horizon is not None:
            small = {"lookback": 8, "horizon": 4}
        elif experiment.tokens is not None:
            small = {"model": "bert-tiny", "tokens": 4}
        else:
            small = {"model": "small-convnet", "image_size": 8, "augment": ()}
        one = experiment.model_copy(update={**values, **small})
        one = _short(one, self._fabric.world_size, _MOST)
        training = Training(self._fabric, one, _made_up(one, images))
        training.train_mode()
        for step in range(_COUNTED):
            training.step(next(training.batches.train(step)))
        return training.state.gradient_examples / (_COUNTED * one.batch_size)

    def gradient(self, training: Training, most: int) -> float:
        """Return the seconds of an example's gradient, the mean of a few steps.

        Args:
            training: is continued by the steps that are timed.
            most: steps that are timed, at most, after the first, which is slower.
        """
        training.train_mode()
        batches = chain.from_iterable(map(training.batches.train, count()))
        first, gradients = self._timed(training, next(batches))
        several: list[tuple[float, int]] = []
        while len(several) < most and self._fabric.broadcast(
            self._clock() + first < self._end
        ):
            several.append(self._timed(training, next(batches)))
        seconds, done = map(sum, zip(*(several or [(first, gradients)]), strict=True))
        return seconds / done

    def _timed(self, training: Training, groups: list[Batch]) -> tuple[float, int]:
        """Seconds and gradients of a step."""
        began, before = self._clock(), training.state.gradient_examples
        training.step(groups)
        training.state.means.read(self._fabric)  # Waits for the device.
        seconds = self._fabric.broadcast(self._clock() - began)
        return seconds, training.state.gradient_examples - before

    def _speed(self, precision: str) -> float:
        """Operations per second of a matrix product."""
        if precision not in self._speeds:
            kind = torch.float64 if precision == "64-true" else torch.float32
            x = torch.randn(1024, 1024, device=self._fabric.device, dtype=kind)
            best = min(self._product(x) for _ in range(5))
            self._speeds[precision] = self._fabric.broadcast(2 * 1024**3 / best)
        return self._speeds[precision]

    def _product(self, x: Tensor) -> float:
        began = time.perf_counter()
        with torch.no_grad(), self._fabric.autocast():
            (x @ x).sum().item()
        return time.perf_counter() - began


def _counted(
    experiment: Experiment, outputs: int, shape: tuple[int, ...]
) -> tuple[int, float]:
    """Count parameters and operations of an example's gradient, computing nothing."""
    channels, kind = shape[0], torch.float32
    if experiment.tokens is not None:
        channels, kind = 0, torch.int64
    try:
        with torch.device("meta"):
            network = prepare.network(experiment, outputs, channels)
    except BadInput:  # Some networks cannot be built on meta.
        network = prepare.network(experiment, outputs, channels).to("meta")
    parameters = sum(p.numel() for p in network.parameters())
    forward = 2.0 * parameters
    with suppress(Exception), torch.no_grad():
        with FlopCounterMode(display=False) as counted:
            network.train()(torch.empty(2, *shape, dtype=kind, device="meta"))
        forward = max(counted.get_total_flops() / 2, forward)
    # Backward takes two products for each one of forward.
    return parameters, 3 * forward


def _shape(experiment: Experiment, images: Images) -> tuple[int, ...]:
    """Return the shape of an example as the network gets it."""
    if experiment.horizon is not None:
        return images.channels, experiment.lookback
    if experiment.tokens is not None:
        return (experiment.tokens,)
    side = _side(experiment, images)
    return images.channels, side, side


def _side(experiment: Experiment, images: Images) -> int:
    return experiment.image_size or images.side or IMAGE_SIZE


def _group(experiment: Experiment, world: int) -> int:
    return experiment.m or experiment.batch_size // world


def _short(experiment: Experiment, world: int, most: int) -> Experiment:
    """Return the experiment with at most ``most`` examples for each process."""
    m = min(_group(experiment, world), most, _MOST)
    groups = max(min(experiment.batch_size // world, most, _MOST) // m, 1)
    values = {"batch_size": m * groups * world, "m": m, "bootstrap": False}
    return experiment.model_copy(update={**values, "warmup": 0, "flatness_rho": None})


def _made_up(experiment: Experiment, images: Images) -> DataSet:
    """A batch of random images of the right shape, of windows, or of sentences."""
    if experiment.horizon is not None:
        series = made_up_series(experiment, experiment.batch_size)
        return windows_of(series, experiment)
    if experiment.tokens is not None:
        sentences = made_up_sentences(experiment, experiment.batch_size)
        return sentences_of(sentences, experiment)
    side = _side(experiment, images)
    shape = (experiment.batch_size, images.channels, side, side)
    x = torch.randint(256, shape, dtype=torch.uint8)
    split = Tensors(x, torch.arange(len(x)) % images.classes)
    names, half = tuple(map(str, range(images.classes))), (0.5,) * images.channels
    return DataSet("random", split, split, names, half, half, images.policy, "made up")

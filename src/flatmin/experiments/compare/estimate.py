"""Estimate how long a comparison takes, from a few timed steps and tests."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from lightning_fabric import Fabric

from flatmin.experiments import evaluate
from flatmin.experiments.compare.place import parts
from flatmin.experiments.compare.plan import ARMS, BASE, Arm, Comparison, Setting
from flatmin.experiments.config import Experiment
from flatmin.experiments.cost import Cost, Images, Meter, estimate
from flatmin.experiments.datasets import DataSet, Files
from flatmin.experiments.train import Training

#: Most seconds and most steps for timing one arm.
_PATIENCE, _STEPS = 2.0, 50


@dataclass(frozen=True, slots=True)
class Times:
    """The costs of a setting's runs on this machine.

    Attributes:
        costs: of a run, by the name of the arm.
        start: seconds until a run's training begins.
        base: a training of the base that has taken a few steps.
    """

    costs: dict[str, Cost]
    start: float
    base: Training


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds of all runs of one seed, and of the landscapes.

    Attributes:
        base: of each run from which the base's settings are chosen.
        methods: of each run from which those of the other arms are.
        final: of each run with the chosen settings.
        landscapes: of both planes.
    """

    base: list[float]
    methods: list[float]
    final: list[float]
    landscapes: float


def timed(fabric: Fabric, what: Comparison, setting: Setting, data: DataSet) -> Times:
    """Time the arms of a setting; nothing is written.

    Raises:
        BadInput: a setting does not fit the data, the network or a method.
    """
    began = time.perf_counter()
    base = _training(fabric, what, setting, BASE, data)
    start = time.perf_counter() - began
    test = _test(base)
    costs = {BASE.name: _cost(base, test)}
    for arm in ARMS[1:]:
        costs[arm.name] = _cost(_training(fabric, what, setting, arm, data), test)
    return Times(costs, start, base)


def _training(
    fabric: Fabric, what: Comparison, setting: Setting, arm: Arm, data: DataSet
) -> Training:
    one = what.candidates(setting, arm)[-1]
    return Training(fabric, what.search(one, len(data.train.y), 0), data)


def _cost(training: Training, test: float) -> Cost:
    seconds = Meter(training.fabric, _PATIENCE).gradient(training, _STEPS)
    state = training.state
    examples = state.step * training.experiment.batch_size
    parameters = sum(p.numel() for p in training.model.parameters())
    return Cost(parameters, state.gradient_examples / examples, seconds, test)


def _test(training: Training) -> float:
    """Return the seconds to test an image."""
    began = time.perf_counter()
    some = list(islice(training.batches.test(), 2))
    evaluate.tested(training.fabric, training.model, some, training.task)
    return (time.perf_counter() - began) / sum(len(y) for _, y in some)


def work(what: Comparison, setting: Setting, data: DataSet, times: Times) -> Work:
    """Estimate the work under a setting.

    The choice is not known yet: each method's final runs, with and without the average
    of the weights, are taken to be as long as its longest candidates. Where both choose
    the same settings, they share one training.
    """
    images, n = Images.of(data), len(data.train.y)
    rest, held = parts(what, setting, data)
    search: dict[str, list[float]] = {}
    final: list[float] = []
    for arm in ARMS:
        tries, cost = what.candidates(setting, arm), times.costs[arm.name]
        longest = max(tries, key=lambda one: one.epochs)
        part = replace(images, train=rest, test=held)
        search[arm.name] = [
            times.start + _run(what.search(one, n, 0), part, cost) for one in tries
        ]
        final += [
            times.start + _run(what.final(longest, ema, 0), images, cost)
            for ema in (None, what.decay(longest, n))
        ]
    planes = 0 if isinstance(data.train, Files) else 2
    points = planes * what.landscape_points**2
    return Work(
        search.pop(BASE.name),
        [seconds for runs in search.values() for seconds in runs],
        final,
        points * n * times.costs[BASE.name].test,
    )


def _run(experiment: Experiment, images: Images, cost: Cost) -> float:
    found = estimate(experiment, images, cost)
    return found.seconds + found.tests + found.measurements


def seconds(
    what: Comparison, works: Sequence[Work], processes: int, start: float
) -> float:
    """Return the seconds that a comparison takes.

    Args:
        what: the comparison.
        works: under each setting.
        processes: that share the runs; the first alone measures landscapes.
        start: seconds until another process begins with its first run.
    """
    base = what.search_seeds * [run for one in works for run in one.base]
    methods = what.search_seeds * [run for one in works for run in one.methods]
    final = what.seeds * [run for one in works for run in one.final]
    later = (processes - 1) * [start]
    # No run of a part begins before the part before it is finished.
    return (
        _shared(base, [0.0, *later])
        + _shared(methods, processes * [0.0])
        + _shared(final, processes * [0.0])
        + sum(one.landscapes for one in works)
    )


def _shared(runs: Sequence[float], free: list[float]) -> float:
    """Return when all runs are done, if each free process takes the next.

    Args:
        runs: seconds of each, in their order.
        free: the time from which each process is free.
    """
    heapq.heapify(free)
    for run in runs:
        heapq.heappush(free, heapq.heappop(free) + run)
    return max(free)

"""The search: train each arm's candidates, and train the best again on all images.

An arm chooses twice, by the errors of its last weights and of their average. Where both
choices are equal, one training writes both runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from lightning_fabric import Fabric
from rich.progress import Progress

from flatmin.experiments.compare.place import Place
from flatmin.experiments.compare.plan import (
    ARMS,
    BASE,
    Arm,
    Comparison,
    Setting,
    point_name,
)
from flatmin.experiments.compare.results import Result, Row
from flatmin.experiments.config import Experiment
from flatmin.experiments.errors import BadInput
from flatmin.experiments.intervals import best as best_of
from flatmin.experiments.jobs import Job, train_job
from flatmin.experiments.runs.checkpoint import clear
from flatmin.experiments.runs.files import is_locked
from flatmin.experiments.runs.record import Run

#: Seconds between two looks at runs that other processes are training.
_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Candidate:
    """One try of an arm, and its runs, one for each seed."""

    experiment: Experiment
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate and the results of its runs."""

    experiment: Experiment
    results: tuple[Result, ...]

    def errors(self, *, averaged: bool) -> tuple[float, ...]:
        """Return the validation error of each seed, per cent."""
        name = "test_error" if averaged else "last_error"
        return tuple(result[name] for result in self.results)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The settings chosen for an arm by validation errors, and the runs with them."""

    setting: Setting
    arm: Arm
    averaged: bool
    longest: bool
    experiment: Experiment
    validation: tuple[float, ...]
    ties: int
    jobs: tuple[Job, ...]
    tried: tuple[Tried, ...]

    def row(self) -> Row:
        """Return the row of results, once all runs are finished."""
        spent = [result for one in self.tried for result in one.results]
        return Row(
            setting=self.setting,
            arm=self.arm,
            averaged=self.averaged,
            longest=self.longest,
            experiment=self.experiment,
            tries=len(self.tried),
            ties=self.ties,
            validation=self.validation,
            results=tuple(map(_result, self.jobs)),
            folders=tuple(job.folder for job in self.jobs),
            search_examples=sum(one["gradient_examples"] for one in spent),
            search_seconds=sum(one["seconds"] for one in spent),
        )


def candidates(
    what: Comparison,
    setting: Setting,
    arm: Arm,
    place: Place,
    lr: float | None = None,
) -> list[Candidate]:
    """Return the candidates of an arm under a setting, with their runs.

    Args:
        what: the comparison.
        setting: under which they are trained.
        arm: the way to train.
        place: where their runs are.
        lr: as of `Comparison.candidates`.
    """
    home = place.root / setting.name / "search" / arm.name
    images = place.images[setting.name]
    return [
        Candidate(
            one,
            tuple(
                Job(
                    what.search(one, images, seed),
                    home / point_name(arm, one) / f"seed-{seed}",
                )
                for seed in range(what.search_seeds)
            ),
        )
        for one in what.candidates(setting, arm, lr)
    ]


def base_jobs(what: Comparison, place: Place) -> list[Job]:
    """Return the runs of the base's candidates, seed by seed."""
    return _seed_by_seed(
        candidate
        for setting in what.settings
        for candidate in candidates(what, setting, BASE, place)
    )


def method_jobs(what: Comparison, place: Place) -> list[Job]:
    """Return those of all other candidates, once `base_jobs` are finished."""
    return _seed_by_seed(
        candidate
        for setting in what.settings
        for candidate in _of_methods(what, setting, place)
    )


def _of_methods(
    what: Comparison, setting: Setting, place: Place
) -> Iterator[Candidate]:
    rate = _rate(what, setting, place)
    for arm in ARMS[1:]:
        yield from candidates(what, setting, arm, place, rate)


def _seed_by_seed(found: Iterable[Candidate]) -> list[Job]:
    every = (candidate.jobs for candidate in found)
    return [job for jobs in zip(*every, strict=True) for job in jobs]


def choose(what: Comparison, place: Place) -> list[Chosen]:
    """Choose the settings of all arms, once their candidates are finished."""
    return [one for setting in what.settings for one in _choose(what, setting, place)]


def _rate(what: Comparison, setting: Setting, place: Place) -> float:
    """Return the learning rate that the base chose."""
    tried = _tried(candidates(what, setting, BASE, place))
    return _best(what, setting, BASE, place, tried).experiment.lr


def _tried(found: Iterable[Candidate]) -> tuple[Tried, ...]:
    return tuple(Tried(one.experiment, tuple(map(_result, one.jobs))) for one in found)


def _choose(what: Comparison, setting: Setting, place: Place) -> Iterator[Chosen]:
    rate: float | None = None
    for arm in ARMS:
        tried = _tried(candidates(what, setting, arm, place, rate))
        plain = _best(what, setting, arm, place, tried)
        rate = rate or plain.experiment.lr
        yield plain
        yield _best(what, setting, arm, place, tried, averaged=True)
        longest = max(one.experiment.epochs for one in tried)
        if arm == BASE and plain.experiment.epochs < longest:
            yield _best(what, setting, arm, place, tried, longest=longest)


def _best(
    what: Comparison,
    setting: Setting,
    arm: Arm,
    place: Place,
    tried: tuple[Tried, ...],
    *,
    averaged: bool = False,
    longest: int | None = None,
) -> Chosen:
    """Choose the candidate with the least validation error, of all or of one length."""
    some = [one for one in tried if longest in (None, one.experiment.epochs)]
    errors = [one.errors(averaged=averaged) for one in some]
    best = best_of(errors)
    one = some[best.index].experiment
    return Chosen(
        setting=setting,
        arm=arm,
        averaged=averaged,
        longest=longest is not None,
        experiment=one,
        validation=errors[best.index],
        ties=best.ties,
        jobs=_final(what, setting, arm, one, place, averaged=averaged),
        tried=tried,
    )


def _final(
    what: Comparison,
    setting: Setting,
    arm: Arm,
    one: Experiment,
    place: Place,
    *,
    averaged: bool,
) -> tuple[Job, ...]:
    name = f"{arm.name}-averaged" if averaged else arm.name
    home = place.root / setting.name / "final" / name / point_name(arm, one)
    ema = what.decay(one, place.images[setting.name]) if averaged else None
    return tuple(
        Job(what.final(one, ema, seed), home / f"seed-{seed}")
        for seed in range(what.seeds)
    )


def train_jobs(
    fabric: Fabric, jobs: list[Job], place: Place, title: str, progress: Progress
) -> None:
    """Train runs until all are finished, beside other processes that do the same.

    A run that another process is training is waited for; if that process was killed,
    the run is taken over.

    Args:
        fabric: of this process.
        jobs: which runs.
        place: where they are.
        title: of the bar.
        progress: where the bar is shown, in gradient examples.
    """
    twins = {job.twin.folder for job in jobs if job.twin is not None}
    costs = {
        job.folder: 0 if job.folder in twins else cost(job.experiment) for job in jobs
    }
    bar = progress.add_task(title, total=sum(costs.values()), note="")
    left = {job.folder: job for job in jobs}
    while left:
        for job in list(left.values()):
            if not Run(job.folder).finished:
                if is_locked(job.folder):
                    continue
                if train_job(fabric, job, place.request, progress) is None:
                    continue
            # A process that was killed right after training may have left a checkpoint.
            clear(job.folder)
            del left[job.folder]
            done = (f for f in costs if f not in left or Run(f).finished)
            progress.update(bar, completed=sum(costs[folder] for folder in done))
        if left:
            time.sleep(_EVERY)


def finished(jobs: list[Job]) -> bool:
    """Whether all runs have results."""
    return all(Run(job.folder).finished for job in jobs)


def train_all(
    fabric: Fabric, what: Comparison, place: Place, progress: Progress
) -> list[Chosen]:
    """Choose the settings of every arm, and train with them, as of `train_jobs`."""
    base = "1/3 choosing settings of the base"
    train_jobs(fabric, base_jobs(what, place), place, base, progress)
    methods = "2/3 choosing settings of SAM"
    train_jobs(fabric, method_jobs(what, place), place, methods, progress)
    chosen = choose(what, place)
    title = "3/3 training with them"
    train_jobs(fabric, final_jobs(chosen), place, title, progress)
    return chosen


def all_trained(what: Comparison, place: Place) -> list[Chosen]:
    """Return the settings that were chosen, and [] if a run is not finished."""
    for jobs in (base_jobs, method_jobs):
        if not finished(jobs(what, place)):
            return []
    chosen = choose(what, place)
    return chosen if finished(final_jobs(chosen)) else []


def cost(experiment: Experiment) -> float:
    """Return a run's share of the work: epochs times gradients per example."""
    arm = next(arm for arm in ARMS if arm.method == experiment.method)
    return experiment.epochs * arm.cost


def _result(job: Job) -> Result:
    result = Run(job.folder).result()
    assert result is not None, f"{job.folder} is not finished"
    needed = "last_error" if job.experiment.ema is not None else "train_error"
    if result.get(needed) is None:
        raise BadInput(
            f"{job.folder}/result.json is damaged: it has no {needed}. Remove the "
            "folder and start again."
        )
    return result


def final_jobs(chosen: list[Chosen]) -> list[Job]:
    """Return all runs with the chosen settings, seed by seed, each once.

    Trainings that write a second run come first, so that no other process begins it.
    """
    rows = zip(*(_with_twins(one, chosen) for one in chosen), strict=True)
    found = [job for jobs in rows for job in jobs]
    found.sort(key=lambda job: job.twin is None)
    return list({job.folder: job for job in found}.values())


def _with_twins(one: Chosen, chosen: list[Chosen]) -> tuple[Job, ...]:
    """Return a choice's runs; those of an average with the same settings' without."""
    for other in chosen:
        same = (other.setting, other.experiment) == (one.setting, one.experiment)
        if one.averaged and not other.averaged and same:
            pairs = zip(one.jobs, other.jobs, strict=True)
            return tuple(replace(job, twin=twin) for job, twin in pairs)
    return one.jobs

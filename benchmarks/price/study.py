"""The runs of a task: those to choose settings from, and those that are tested."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from arms import MANY, Arm, Setting, arms
from ledger import Ledger, Result, key
from rich.console import Console
from tasks import Task

from flatmin.experiments.config import Experiment
from flatmin.experiments.intervals import mean
from flatmin.experiments.jobs import Job, Request, data_of, train_job
from flatmin.experiments.launch import launched
from flatmin.experiments.progress import bars
from flatmin.experiments.tasks import task_of

#: Differences are taken to these: the best base that validation finds, and SAM.
BASE, SAM = "base-chosen", "sam"

#: The arms of a small study: those that the table compares with, and a late one.
_SMALL = (BASE, SAM, "late-quarter")

#: The names of all arms.
NAMES = tuple(arm.name for arm in arms(MANY))


@dataclass(frozen=True, slots=True)
class Tested:
    """The tested runs of an arm.

    Attributes:
        arm: that was trained.
        chosen: its settings.
        results: of the runs, by seed.
    """

    arm: Arm
    chosen: Experiment
    results: dict[int, Result]

    def scores(self, *, averaged: bool) -> dict[int, float]:
        """Return the errors by seed, of the last weights or of their average."""
        return {
            seed: score(self.chosen, one, averaged)
            for seed, one in self.results.items()
        }


def score(experiment: Experiment, result: Result, averaged: bool) -> float:
    """Return the number by which a run is judged; less is better."""
    name = task_of(experiment).score
    return float(result[name if averaged else name.replace("test", "last")])


@dataclass(frozen=True, slots=True)
class Study:
    """All runs of a task.

    Attributes:
        task: that is studied.
        root: folder of its runs; several processes may share it.
        ledger: the runs that are finished; those that it has are not trained.
        data: where the data sets are.
        seeds: how many are tested.
        arms: names of the ways to train.
        weights: a file for a pretrained network; None to download its weights.
        small: whether three arms run for 3 epochs, with two candidates and one seed.
    """

    task: Task
    root: Path
    ledger: Ledger
    data: Path
    seeds: int = 5
    arms: Sequence[str] = NAMES
    weights: str | None = None
    small: bool = False

    def tested(self) -> Iterator[Tested]:
        """Choose the settings of every arm, then train with all seeds."""
        task = self.task.experiment(self.data, self.weights)
        if self.small:
            task = task.model_copy(update={"epochs": 3})
        names, base = _SMALL if self.small else self.arms, None
        for arm in (arm for arm in arms(self.task.tries) if arm.name in names):
            setting = self._chosen(arm, task, base)
            if arm.name == BASE and self.task.tries.at_base:
                base = setting
            (chosen,) = self._experiments(arm, task, [setting])
            runs = [chosen.model_copy(update={"seed": seed}) for seed in self._seeds]
            results = self._all("test", arm, runs)
            yield Tested(arm, chosen, dict(zip(self._seeds, results, strict=True)))

    @property
    def _seeds(self) -> range:
        return range(self.seeds)

    def _chosen(self, arm: Arm, task: Experiment, base: Setting | None) -> Setting:
        """Return the settings with the least error on held-out examples."""
        per_epoch = self._per_epoch(task)
        if (known := self.ledger.tested(arm.name, task, per_epoch)) is not None:
            return known
        tried = arm.settings(self.task.rhos, base)
        if self.small:
            tried = tried[:2]
        if len(tried) == 1:
            return tried[0]
        held = {"validation": 0.1, "noisy_validation": task.noise > 0}
        tries = self._experiments(arm, task.model_copy(update=held), tried)
        runs = [
            one.model_copy(update={"seed": seed})
            for one in tries
            for seed in self._choice
        ]
        found = self._all("choose", arm, runs)
        n = len(self._choice)
        errors = [
            mean([score(task, one, averaged=False) for one in found[i : i + n]])
            for i in range(0, len(found), n)
        ]
        return tried[errors.index(min(errors))]

    @property
    def _choice(self) -> tuple[int, ...]:
        return self.task.tries.seeds[: 1 if self.small else None]

    def _experiments(
        self, arm: Arm, task: Experiment, settings: Sequence[Setting]
    ) -> list[Experiment]:
        return [arm.experiment(one, task, self._per_epoch(task)) for one in settings]

    def _per_epoch(self, task: Experiment) -> int:
        return len(data_of(task, self._request).train.y) // task.batch_size

    @property
    def _request(self) -> Request:
        return Request("price", root=self.root, data=self.data)

    def _all(self, stage: str, arm: Arm, runs: Sequence[Experiment]) -> list[Result]:
        """Return the results of runs; wait for those that another process trains."""
        keys = [key(stage, arm.name, one) for one in runs]
        finished = self.ledger.runs
        while left := [k for k, of in enumerate(keys) if of not in finished]:
            before = len(finished)
            for k in left:
                result = self._run(f"{stage}/{arm.name}", runs[k])
                if result is not None:
                    self.ledger.add(keys[k], result)
            if len(finished) == before:
                time.sleep(1)
        return [finished[of] for of in keys]

    def _run(self, stage: str, one: Experiment) -> Result | None:
        name = f"steps-{one.steps}-lr-{one.lr:g}-rho-{one.rho:g}"
        job = Job(one, self.root / stage / name / f"seed-{one.seed}")
        with bars(Console(stderr=True)) as progress:
            return train_job(launched(one), job, self._request, progress)

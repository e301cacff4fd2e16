"""A sweep's points as trials of an Optuna study, which any number of processes share.

The first trial of a point that has not failed is its *holder*; others are withdrawn.
Optuna lets one process run a waiting trial. Whether that process still lives is seen by
the lock of the point's folder on one machine, and by heartbeats on several.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from flatmin.experiments.errors import BadInput
from flatmin.experiments.intervals import mean
from flatmin.experiments.runs.asked import point_folder
from flatmin.experiments.runs.files import Busy, in_turn, locked
from flatmin.experiments.sweep._grid import Grid, Point
from flatmin.experiments.sweep._storage import FAILURES, opened

#: States of trials that have not failed.
_LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


@dataclass(frozen=True, slots=True)
class Standing:
    """A point, and the validation error of each seed; none until it is trained."""

    point: Point
    errors: tuple[float, ...] = ()


class Study:
    """The study of a grid.

    Args:
        grid: what to try. Points that other commands have added are trained too.
        home: the sweep's folder.
        url: of a data base for several machines; None for a file in ``home``.

    Raises:
        BadInput: the data base cannot be used, or is another program's.
    """

    def __init__(self, grid: Grid, home: Path, url: str | None = None) -> None:
        self.grid, self._home, self._url = grid, home, url
        self._tried: list[Point] = []
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with in_turn(home):
            self._study = optuna.create_study(
                storage=opened(home / "study.db", url),
                study_name=grid.name,
                load_if_exists=True,
            )
            self._fill()

    def take(self, train: Callable[[Point], list[float]]) -> bool:
        """Train a point that no process is training.

        A point whose training fails is left to the next process.

        Args:
            train: returns the validation error of each seed.

        Returns:
            Whether any trial was waiting.

        Raises:
            BadInput: as ``train``, or the study is damaged.
        """
        late = False

        def objective(trial: Trial) -> float:
            nonlocal late
            point = self._held(trial.number)
            self._tried.append(point)
            mine.enter_context(locked(point_folder(self._home, point)))
            turn.close()
            errors = train(point)
            try:
                trial.set_user_attr("errors", errors)
            except UpdateFinishedTrialError:
                late = True
            return mean(errors)

        # A running trial whose folder is not locked counts as dead. The folder is
        # therefore locked before others may look, and until the trial has ended.
        with ExitStack() as mine, ExitStack() as turn:
            turn.enter_context(in_turn(self._home))
            if not self._fill():
                return False
            try:
                self._study.optimize(objective, n_trials=1, catch=(Busy,))
            except (AssertionError, NameError, ValueError) as error:
                # Optuna raises these if the data base fails, or if others have ended
                # the trial because its heartbeats were late.
                if not late:
                    behind = _behind(error)
                    raise behind from behind.__cause__
        return True

    def standings(self) -> list[Standing]:
        """Return every point of the study, in ascending order."""
        found = [Standing(point, self._errors(x)) for point, x in self._holders()]
        return sorted(found, key=lambda one: tuple(one.point.values()))

    def _fill(self) -> bool:
        """Add trials for points without a holder; return whether any trial waits."""
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            optuna.storages.fail_stale_trials(self._study)
        for point, trial in self._holders():
            if self._is_dead(point, trial):
                # It may have ended since it was read.
                failed = TrialState.FAIL
                self._study.tell(trial.number, state=failed, skip_if_finished=True)
        there = [*self._tried, *(point for point, _ in self._holders())]
        for point in self.grid.points:
            if point not in there:
                self._study.add_trial(_waiting(point))
        return bool(self._trials(TrialState.WAITING))

    def _is_dead(self, point: Point, trial: FrozenTrial) -> bool:
        """Whether a trial of this machine runs without holding its lock."""
        if self._url is not None or trial.state != TrialState.RUNNING:
            return False
        try:
            with locked(point_folder(self._home, point)):
                return True
        except Busy:
            return False

    def _held(self, number: int) -> Point:
        for point, trial in self._holders():
            if trial.number == number:
                return point
        raise Busy(f"trial {number} holds no point.")

    def _holders(self) -> list[tuple[Point, FrozenTrial]]:
        found: dict[tuple[float, ...], tuple[Point, FrozenTrial]] = {}
        for trial in self._trials(*_LIVE):
            if trial.params:  # Optuna makes one without if no trial is waiting.
                point = self._point(trial)
                found.setdefault(tuple(point.values()), (point, trial))
        return list(found.values())

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        try:
            trials = self._study.get_trials(deepcopy=False, states=states)
        except (LookupError, TypeError, ValueError) as error:
            raise self._damaged(f"a trial cannot be read ({error})") from None
        return sorted(trials, key=lambda trial: trial.number)

    def _point(self, trial: FrozenTrial) -> Point:
        axes = self.grid.axes
        try:
            if trial.params.keys() != axes.keys():
                raise BadInput(f"the grid is over {' and '.join(axes)}.")
            one = self.grid.experiment(trial.params)
        except BadInput as error:
            what = f"trial {trial.number} is at {trial.params}, outside of the grid"
            raise self._damaged(f"{what} ({str(error).rstrip('.')})") from None
        return {name: getattr(one, name) for name in axes}

    def _errors(self, trial: FrozenTrial) -> tuple[float, ...]:
        if trial.state != TrialState.COMPLETE:
            return ()
        errors: Any = trial.user_attrs.get("errors")
        n = self.grid.seeds
        if not _are_errors(errors, n):
            what = f"trial {trial.number} needs {n} validation errors, got {errors!r}"
            raise self._damaged(what)
        return tuple(errors)

    def _damaged(self, what: str) -> BadInput:
        place = self._home / "study.db" if self._url is None else repr(self.grid.name)
        advice = "Remove it and start again: runs that are finished are kept."
        return BadInput(f"the study {place} is damaged: {what}. {advice}")


def _waiting(point: Point) -> FrozenTrial:
    ranges = {name: FloatDistribution(x, x) for name, x in point.items()}
    state = TrialState.WAITING
    return create_trial(state=state, params={**point}, distributions={**ranges})


def _are_errors(errors: Any, n: int) -> bool:
    numbers = isinstance(errors, list) and all(type(x) in (int, float) for x in errors)
    return numbers and len(errors) == n and all(map(math.isfinite, errors))


def _behind(error: Exception) -> Exception:
    """Return the data base's failure that caused an error, or else the error itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, FAILURES):
            return cause
        cause = cause.__context__
    return error

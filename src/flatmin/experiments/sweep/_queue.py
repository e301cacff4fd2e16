"""A sweep's points as the trials of an Optuna study: each trained once, by anybody.

A point's *holder* is its first trial that has not failed. Only holders are trained, so
that two processes which put the same point in line do no harm: the later trial is
withdrawn. Two processes on one machine cannot both take a holder, because each holds
the lock of the point's folder meanwhile; two machines cannot either, because the data
base lets one of them turn "waiting" into "running".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from flatmin.experiments.errors import BadInput
from flatmin.experiments.store import Busy, in_turn, locked
from flatmin.experiments.sweep._grid import Grid, Point

#: Seconds between two signs of life of a trial in a shared data base.
BEAT = 60

#: Seconds without one, after which a trial counts as killed.
GRACE = 300

#: Seconds that a process waits for others to write to SQLite.
_PATIENCE = 60


@dataclass(frozen=True, slots=True)
class Turn:
    """A point that this process has taken.

    Attributes:
        point: what to train.
        finish: to be called with the validation error of each seed, per cent.
    """

    point: Point
    finish: Callable[[list[float]], None]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a point stands.

    Attributes:
        point: the value of each field of the grid.
        errors: the validation error of each seed, per cent; empty until trained.
    """

    point: Point
    errors: tuple[float, ...] = ()


class Queue:
    """The study of a grid.

    Args:
        grid: what to try. Points that others have added are trained too.
        place: the folder of a point.
        home: the sweep's folder; its study is there unless ``url`` is given.
        url: of a data base that several machines share. Trials are then known to be
            alive by their heartbeats, and otherwise by the lock of their folder.

    Raises:
        BadInput: the data base cannot be opened.
    """

    def __init__(
        self,
        grid: Grid,
        place: Callable[[Point], Path],
        home: Path,
        url: str | None = None,
    ) -> None:
        self.grid, self._place, self._home = grid, place, home
        self._shared = url is not None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with in_turn(home):
            own = f"sqlite:///{home / 'study.db'}"
            self._storage = _opened(url or own, beats=self._shared)
            self._study = optuna.create_study(
                storage=self._storage, study_name=grid.name, load_if_exists=True
            )
        self._study.set_user_attr("common", grid.common)
        self._id = self._storage.get_study_id_from_name(grid.name)

    def fill(self) -> None:
        """Put the points in line that are not, or whose trials have all failed."""
        if self._shared:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                optuna.storages.fail_stale_trials(self._study)
        with in_turn(self._home):
            there = [trial.params for trial in self._holders()]
            for point in self.grid.points:
                if point not in there:
                    self._study.add_trial(self._waiting(point))

    def _waiting(self, point: Point) -> FrozenTrial:
        ranges = {name: _range(values) for name, values in self.grid.axes.items()}
        return create_trial(
            state=TrialState.WAITING, params={**point}, distributions=ranges
        )

    def _holders(self) -> list[FrozenTrial]:
        """The trial of each point that counts; others that wait are withdrawn."""
        found: dict[tuple[Any, ...], FrozenTrial] = {}
        trials = self._storage.get_all_trials(self._id, deepcopy=False)
        for trial in sorted(trials, key=lambda trial: trial.number):
            if trial.state == TrialState.FAIL:
                continue
            holder = found.setdefault(tuple(sorted(trial.params.items())), trial)
            if trial is not holder and trial.state == TrialState.WAITING:
                self._fail(self._key(trial))
        return list(found.values())

    @contextmanager
    def turn(self) -> Iterator[Turn | None]:
        """A point that nobody is at, for this process alone; None if there is none.

        What ends in an error goes back into the line.
        """
        for trial in self._holders():
            if trial.state.is_finished():
                continue
            point, key = _ordered(trial.params, self.grid), self._key(trial)
            with ExitStack() as stack:
                if self._taken(key, self._place(point), stack):
                    stack.enter_context(self._beating(key))
                    stack.push(partial(self._fail_after, key))
                    yield Turn(point, partial(self._finish, key))
                    return
        yield None

    def _taken(self, key: int, folder: Path, stack: ExitStack) -> bool:
        """Whether a trial is this process's now, with the lock of its folder.

        Of trials on one machine, one that runs without holding the lock was killed.
        """
        try:
            stack.enter_context(locked(folder))
        except Busy:
            return False
        if self._shared:
            # First: a trial without any heartbeat would run for ever.
            self._storage.record_heartbeat(key)
        state = self._storage.get_trial(key).state
        if state == TrialState.RUNNING:
            return not self._shared
        if state != TrialState.WAITING:
            return False
        return self._storage.set_trial_state_values(key, TrialState.RUNNING)

    @contextmanager
    def _beating(self, key: int) -> Iterator[None]:
        """Signs of life, meanwhile, where other machines need them."""
        if not self._shared:
            yield
            return
        over = Event()
        thread = Thread(target=self._beat, args=(key, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _beat(self, key: int, over: Event) -> None:
        while not over.wait(BEAT):
            # A data base that is away for a while is not worth a run.
            with suppress(StorageInternalError):
                self._storage.record_heartbeat(key)

    def _finish(self, key: int, errors: list[float]) -> None:
        # Optuna's error for a trial that somebody else has ended: the numbers are the
        # same, whoever trains the point.
        with suppress(RuntimeError):
            self._storage.set_trial_user_attr(key, "errors", errors)
            mean = sum(errors) / len(errors)
            self._storage.set_trial_state_values(key, TrialState.COMPLETE, [mean])

    def _fail_after(self, key: int, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None:
            self._fail(key)

    def _fail(self, key: int) -> None:
        with suppress(RuntimeError, StorageInternalError):
            self._storage.set_trial_state_values(key, TrialState.FAIL)

    def _key(self, trial: FrozenTrial) -> int:
        number = trial.number
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def standings(self) -> list[Standing]:
        """Every point of the study, in ascending order."""
        found = [
            Standing(_ordered(trial.params, self.grid), _errors(trial))
            for trial in self._holders()
        ]
        return sorted(found, key=lambda standing: tuple(standing.point.values()))


def _errors(trial: FrozenTrial) -> tuple[float, ...]:
    done = trial.state == TrialState.COMPLETE
    return tuple(trial.user_attrs["errors"]) if done else ()


def _opened(url: str, *, beats: bool) -> RDBStorage:
    """The data base, with heartbeats or without."""
    sqlite = url.startswith("sqlite")
    engine = {"connect_args": {"timeout": _PATIENCE}} if sqlite else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return RDBStorage(
                url,
                engine,
                heartbeat_interval=BEAT if beats else None,
                grace_period=GRACE if beats else None,
            )
    except (
        ImportError,
        RuntimeError,
        ValueError,
        StorageInternalError,
        SQLAlchemyError,
    ) as error:
        raise BadInput(
            f"cannot open the data base {_shown(url)}: {_reason(error)}"
        ) from None


def _shown(url: str) -> str:
    """Without a password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "of --storage"


def _reason(error: Exception) -> str:
    """The data base's own words, without SQLAlchemy's."""
    own = getattr(error, "orig", None) or error.__cause__ or error
    return f"{str(own).splitlines()[0].rstrip('.')}."


def _range(values: tuple[float, ...]) -> BaseDistribution:
    low, high = min(values), max(values)
    if isinstance(low, int):
        return IntDistribution(low, int(high))
    return FloatDistribution(low, high)


def _ordered(params: Mapping[str, float], grid: Grid) -> Point:
    """The values in the order of the grid's axes."""
    return {name: params[name] for name in grid.axes}

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from flatmin.experiments.errors import BadInput
from flatmin.experiments.runs.files import Busy, locked
from flatmin.experiments.sweep import _storage
from flatmin.experiments.sweep._grid import Point, grid
from flatmin.experiments.sweep._study import Study
from tests.experiments.sweep.helpers import RHOS, smoke


def study_in(
    out: Path, *settings: str, url: str | None = None, place: str = "places"
) -> Study:
    return Study(grid(smoke(out, *settings)), out / place, url)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return study_in(tmp_path)


def everything(study: Study) -> list[float]:
    """The rho of all points that a process gets, each of which is finished."""
    found: list[float] = []

    def train(point: Point) -> list[float]:
        found.append(point["rho"])
        return [point["rho"]]

    while study.take(train):
        pass
    return found


@contextmanager
def at_a_point(study: Study, error: float = 50.0) -> Iterator[None]:
    """Another process of this machine that is at a point, and then finishes it."""
    begun, over = Event(), Event()

    def train(point: Point) -> list[float]:
        begun.set()
        assert over.wait(60)
        return [error]

    thread = Thread(target=study.take, args=(train,))
    thread.start()
    try:
        assert begun.wait(20)
        yield
    finally:
        over.set()
        thread.join()


def errors(study: Study) -> dict[float, tuple[float, ...]]:
    return {one.point["rho"]: one.errors for one in study.standings()}


def test_every_point_comes_once_in_the_order_of_the_grid(
    study: Study, tmp_path: Path
) -> None:
    assert everything(study) == RHOS
    assert everything(study_in(tmp_path)) == []
    assert errors(study) == {rho: (rho,) for rho in RHOS}


def test_a_point_that_somebody_is_at_goes_to_nobody_else(
    study: Study, tmp_path: Path
) -> None:
    with at_a_point(study):
        assert everything(study_in(tmp_path)) == RHOS[1:]
    assert everything(study_in(tmp_path)) == []
    assert errors(study)[RHOS[0]] == (50.0,)


def test_a_point_whose_process_was_killed_comes_again_at_once(
    study: Study, tmp_path: Path
) -> None:
    study._study.ask()
    assert everything(study_in(tmp_path)) == [*RHOS[1:], RHOS[0]]
    states = [trial.state for trial in study._study.trials]
    assert states == [TrialState.FAIL] + [TrialState.COMPLETE] * 6


def test_a_trial_that_ends_while_others_look_is_not_taken_for_dead(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, look = study_in(tmp_path), Study._is_dead
    looked = False

    def late(judge: Study, point: Point, trial: optuna.trial.FrozenTrial) -> bool:
        """Between reading a trial and trying its lock, it ends."""
        nonlocal looked
        if trial.state == TrialState.RUNNING:
            looked = True
            over.set()
            thread.join()
        return look(judge, point, trial)

    begun, over = Event(), Event()

    def train(point: Point) -> list[float]:
        begun.set()
        assert over.wait(60)
        return [point["rho"]]

    thread = Thread(target=study.take, args=(train,))
    thread.start()
    assert begun.wait(60)
    monkeypatch.setattr(Study, "_is_dead", late)
    found: list[float] | Exception
    try:
        found = everything(other)
    except ValueError as error:  # Optuna's, for a trial that has ended
        found = error
    assert found == RHOS[1:]
    assert looked
    assert {trial.state for trial in other._study.trials} == {TrialState.COMPLETE}


def test_a_point_is_locked_until_its_trial_has_ended(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimize, locks = optuna.Study.optimize, list[bool]()

    def watched(*arguments: Any, **named: Any) -> None:
        optimize(*arguments, **named)
        with pytest.raises(Busy), locked(tmp_path / "places" / "rho-0.01"):
            locks.append(False)
        locks.append(True)

    monkeypatch.setattr(optuna.Study, "optimize", watched)
    assert study.take(lambda point: [point["rho"]])
    assert locks == [True]


def test_points_that_were_put_in_line_twice_are_trained_once(
    study: Study, tmp_path: Path
) -> None:
    for trial in study._study.trials:
        study._study.add_trial(trial)
    assert everything(study) == RHOS
    assert everything(study_in(tmp_path)) == []
    states = [trial.state for trial in study._study.trials]
    assert states == [TrialState.COMPLETE] * 6 + [TrialState.FAIL] * 6


def test_a_trial_that_holds_no_point_is_withdrawn(study: Study) -> None:
    study._study.enqueue_trial({"rho": 0.3})
    assert everything(study) == RHOS
    assert len(study.standings()) == 6
    assert study._study.trials[-1].state == TrialState.FAIL


def test_an_error_ends_the_process_and_puts_the_point_back(
    study: Study, tmp_path: Path
) -> None:
    def refused(point: Point) -> list[float]:
        raise BadInput(f"no {point['rho']}.")

    with pytest.raises(BadInput, match=r"^no 0.01.$"):
        study.take(refused)
    assert everything(study) == RHOS[1:]
    assert everything(study_in(tmp_path)) == RHOS[:1]


def test_what_never_becomes_a_number_does_not_come_for_ever(study: Study) -> None:
    def never(point: Point) -> list[float]:
        return [float("nan")]

    tries = 0
    while study.take(never):
        tries += 1
        assert tries <= 6
    assert tries == 6
    assert set(errors(study).values()) <= {()}


def test_a_wider_grid_adds_its_points(study: Study, tmp_path: Path) -> None:
    everything(study)
    wider = study_in(tmp_path, "rho=[0.001,0.5,2]")
    assert everything(wider) == [0.001, 2]
    assert list(errors(wider)) == [0.001, *RHOS, 2]


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    study = study_in(tmp_path, "rho=0.1", "batch_size=[4,8]")
    assert [str(one.point) for one in study.standings()] == [
        "{'batch_size': 4}",
        "{'batch_size': 8}",
    ]


def test_a_folder_may_have_signs_that_mean_something_in_a_url(tmp_path: Path) -> None:
    study_in(tmp_path, place="a?b{c}%20#d")
    assert (tmp_path / "a?b{c}%20#d" / "study.db").is_file()


def aged(path: Path, seconds: int) -> None:
    with sqlite3.connect(path) as base:
        before = f"datetime('now', '-{seconds} seconds')"
        base.execute(f"UPDATE trial_heartbeats SET heartbeat = {before}")
    base.close()


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Study, Study]:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    one, other = (study_in(tmp_path, url=url, place=place) for place in "ab")
    return one, other


def test_a_point_of_another_machine_is_taken_when_its_heart_stops(
    machines: tuple[Study, Study], tmp_path: Path
) -> None:
    here, there = machines
    base = tmp_path / "shared.db"
    with at_a_point(there, error=99.0):
        assert everything(here) == RHOS[1:]
        aged(base, 200)
        assert everything(here) == []
        aged(base, 400)
        assert everything(here) == RHOS[:1]
        # The other was not dead after all: it ends without an error.
    assert errors(here)[RHOS[0]] == (0.01,)


def test_a_process_killed_before_its_first_heartbeat_does_not_keep_its_point(
    machines: tuple[Study, Study], tmp_path: Path
) -> None:
    here, there = machines
    with pytest.warns(UserWarning, match="supposed to be used with Study.optimize"):
        there._study.ask()
    aged(tmp_path / "shared.db", 400)
    assert everything(here) == [*RHOS[1:], RHOS[0]]


def test_hearts_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_storage, "BEAT", 1)
    study = study_in(tmp_path, url=f"sqlite:///{tmp_path / 'shared.db'}")
    beaten, record, beats = Event(), optuna.storages.RDBStorage.record_heartbeat, 0

    def counted(storage: optuna.storages.RDBStorage, key: int) -> None:
        nonlocal beats
        record(storage, key)
        beats += 1
        if beats == 3:  # As it is taken, as training begins, and a second later
            beaten.set()

    monkeypatch.setattr(optuna.storages.RDBStorage, "record_heartbeat", counted)

    def train(point: Point) -> list[float]:
        assert beaten.wait(60)
        return [point["rho"]]

    assert study.take(train)
    assert beats >= 3

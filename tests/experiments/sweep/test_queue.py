import sqlite3
from contextlib import ExitStack
from pathlib import Path

import pytest
from optuna.trial import TrialState

from flatmin.experiments.errors import BadInput
from flatmin.experiments.folders import point_folder
from flatmin.experiments.sweep._grid import grid
from flatmin.experiments.sweep._queue import Queue
from tests.experiments.sweep.helpers import RHOS, smoke


def queue_in(
    out: Path, *settings: str, url: str | None = None, place: str = "places"
) -> Queue:
    return Queue(
        grid(smoke(out, *settings)),
        lambda point: point_folder(out / place, point),
        out / place,
        url,
    )


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    found = queue_in(tmp_path)
    found.fill()
    return found


def everything(queue: Queue) -> list[float]:
    """The rho of all points that a queue gives, each of which is finished."""
    found: list[float] = []
    while True:
        with queue.turn() as turn:
            if turn is None:
                return found
            found.append(turn.point["rho"])
            turn.finish([turn.point["rho"]])


def test_every_point_comes_once_in_the_order_of_the_grid(queue: Queue) -> None:
    queue.fill()
    assert everything(queue) == RHOS
    queue.fill()
    assert everything(queue) == []
    assert [one.errors for one in queue.standings()] == [(rho,) for rho in RHOS]


def test_a_point_that_somebody_is_at_goes_to_nobody_else(
    queue: Queue, tmp_path: Path
) -> None:
    with queue.turn() as turn:
        assert turn is not None
        assert everything(queue_in(tmp_path)) == RHOS[1:]
        turn.finish([50.0])
    assert everything(queue) == []


def test_a_point_whose_process_was_killed_comes_again(
    queue: Queue, tmp_path: Path
) -> None:
    key = queue._key(queue._holders()[3])
    queue._storage.set_trial_state_values(key, TrialState.RUNNING)
    assert everything(queue_in(tmp_path)) == RHOS


def test_a_point_finished_since_the_last_look_is_left_alone(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = queue_in(tmp_path)
    old = late._holders()
    everything(queue)
    monkeypatch.setattr(late, "_holders", lambda: old)
    with late.turn() as turn:
        assert turn is None


def test_points_that_were_put_in_line_twice_are_trained_once(
    queue: Queue, tmp_path: Path
) -> None:
    other = queue_in(tmp_path)
    for point in other.grid.points:
        other._study.add_trial(other._waiting(point))
    assert everything(queue) == RHOS
    assert everything(other) == []
    states = [trial.state for trial in queue._study.trials]
    assert states == [TrialState.COMPLETE] * 6 + [TrialState.FAIL] * 6


def test_an_error_puts_the_point_back(queue: Queue) -> None:
    with pytest.raises(BadInput), queue.turn():
        raise BadInput("no.")
    assert everything(queue) == RHOS[1:]
    queue.fill()
    assert everything(queue) == RHOS[:1]


def test_a_wider_grid_adds_its_points(queue: Queue, tmp_path: Path) -> None:
    everything(queue)
    wider = queue_in(tmp_path, "rho=[0.001,0.5,2]")
    wider.fill()
    assert everything(wider) == [0.001, 2]
    points = [one.point["rho"] for one in wider.standings()]
    assert points == [0.001, *RHOS, 2]


def aged(path: Path, seconds: int) -> None:
    with sqlite3.connect(path) as base:
        before = f"datetime('now', '-{seconds} seconds')"
        base.execute(f"UPDATE trial_heartbeats SET heartbeat = {before}")
    base.close()


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Queue, Queue]:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    one, other = (queue_in(tmp_path, url=url, place=place) for place in "ab")
    return one, other


def test_a_point_of_another_machine_is_taken_when_its_heart_stops(
    machines: tuple[Queue, Queue], tmp_path: Path
) -> None:
    here, there = machines
    there.fill()
    with ExitStack() as stack:
        turn = stack.enter_context(there.turn())
        assert turn is not None
        here.fill()
        assert everything(here) == RHOS[1:]
        aged(tmp_path / "shared.db", 200)
        here.fill()
        assert everything(here) == []
        aged(tmp_path / "shared.db", 400)
        here.fill()
        assert everything(here) == RHOS[:1]
        # It was not dead after all.
        turn.finish([99.0])
    assert here.standings()[0].errors == (0.01,)


def test_hearts_beat(
    machines: tuple[Queue, Queue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Event

    from flatmin.experiments.sweep import _queue

    queue, beaten, beats = machines[0], Event(), 0
    queue.fill()
    record = queue._storage.record_heartbeat

    def counted(key: int) -> None:
        nonlocal beats
        record(key)
        beats += 1
        if beats == 3:
            beaten.set()

    monkeypatch.setattr(_queue, "BEAT", 0.001)
    monkeypatch.setattr(queue._storage, "record_heartbeat", counted)
    with queue.turn():
        assert beaten.wait(60)

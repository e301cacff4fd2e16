"""One training writes two runs: with an average of its weights, and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress
from safetensors.torch import load_file

from flatmin.experiments import jobs as module
from flatmin.experiments import train
from flatmin.experiments.config import Experiment
from flatmin.experiments.jobs import Job, Request, train_job
from flatmin.experiments.launch import launched
from flatmin.experiments.log import Log
from flatmin.experiments.runs.files import locked
from flatmin.experiments.runs.record import Run
from flatmin.experiments.train import Training
from tests.experiments.loop.problems import (
    Told,
    pictures,
    same,
    small,
    trained,
    without_time,
)

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "measured": {"spectrum_at": (2,), "flatness_rho": 0.05, "noise": 0.2},
}


def averaged(**changes: Any) -> Experiment:
    return small(epochs=3, ema=0.8, **changes)


def plain(one: Experiment) -> Experiment:
    return one.model_copy(update={"ema": None})


def both(one: Experiment, root: Path, stop_at: int | None = None) -> tuple[Run, Run]:
    """Train into two folders; ``stop_at`` ends the first start there."""
    data, folder, twin = pictures(), root / "averaged", root / "plain"

    class Stopped(Exception):
        pass

    def stop(step: int, steps: int) -> None:
        del steps
        if step == stop_at:
            raise Stopped

    if stop_at is not None:
        with pytest.raises(Stopped):
            Training(launched(one), one, data).run(folder, Told(tick=stop), twin)
    Training(launched(one), one, data).run(folder, None, twin)
    return Run(folder), Run(twin)


def check(found: Run, expected: Run) -> None:
    assert same(found.weights(), expected.weights())
    result, other = found.result(), expected.result()
    assert result is not None
    assert other is not None
    assert list(without_time(result).items()) == list(without_time(other).items())
    lines = [list(without_time(line).items()) for line in expected.metrics()]
    assert [list(without_time(line).items()) for line in found.metrics()] == lines
    for name in ("labels", "predictions"):
        path = f"{name}.safetensors"
        a, b = (load_file(run.folder / path) for run in (found, expected))
        assert same(a, b)


@pytest.mark.parametrize(
    "kind", ["plain", pytest.param("measured", marks=pytest.mark.everything)]
)
def test_both_runs_are_what_trainings_of_their_own_write(
    kind: str, tmp_path: Path
) -> None:
    one = averaged(**KINDS[kind])
    found, twin = both(one, tmp_path)
    check(found, trained(one, tmp_path / "alone"))
    check(twin, trained(plain(one), tmp_path / "plain alone"))
    assert not same(found.weights(), twin.weights())


def test_a_bootstrapped_run_has_a_teacher_of_its_own(tmp_path: Path) -> None:
    _, twin = both(averaged(bootstrap=True, noise=0.5), tmp_path)
    assert files(twin.folder) == {}


def test_both_runs_go_on_where_they_were_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(train, "_ASK_EVERY", 1)
    one = averaged()
    found, twin = both(one, tmp_path, stop_at=8)
    check(found, trained(one, tmp_path / "alone"))
    check(twin, trained(plain(one), tmp_path / "plain alone"))


def left(one: Experiment, folder: Path, at: int) -> None:
    """Leave a run in a step, with the checkpoint of the step before."""

    def stop(step: int, steps: int) -> None:
        del steps
        if step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Training(launched(one), one, pictures()).run(folder, Told(tick=stop))


@pytest.mark.parametrize("begun", ["averaged", "plain"])
def test_a_twin_that_cannot_come_along_is_left_as_it_is(
    begun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two runs that an older version trained apart, one had been begun."""
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(train, "_ASK_EVERY", 1)
    one = averaged()
    first = one if begun == "averaged" else plain(one)
    left(first, tmp_path / begun, 8)
    before = files(tmp_path / "plain")
    found, twin = both(one, tmp_path)
    check(found, trained(one, tmp_path / "alone"))
    assert files(tmp_path / "plain") == before
    assert twin.result() is None
    expected = trained(plain(one), tmp_path / "plain alone")
    check(trained(plain(one), tmp_path / "plain"), expected)


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Job, Request]:
    one = averaged()
    monkeypatch.setattr(module, "data_of", lambda *_: pictures())
    twin = Job(plain(one), tmp_path / "plain" / "seed-0")
    return Job(one, tmp_path / "averaged" / "seed-0", twin), Request("", root=tmp_path)


def do(job: Job, request: Request) -> dict[str, Any] | None:
    return train_job(launched(job.experiment), job, request, Progress(disable=True))


def test_a_job_writes_both_configurations(work: tuple[Job, Request]) -> None:
    job, request = work
    assert job.twin is not None
    assert do(job, request) == Run(job.folder).result()
    assert Run(job.folder).experiment == job.experiment
    assert Run(job.twin.folder).experiment == job.twin.experiment
    assert len(Run(job.twin.folder).starts()) == 1
    assert do(job.twin, request) == Run(job.twin.folder).result()


def test_a_twin_that_is_finished_is_not_written_again(
    work: tuple[Job, Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, request = work
    assert job.twin is not None
    do(job.twin, request)
    before = files(job.twin.folder)
    do(job, request)
    assert files(job.twin.folder) == before


def test_a_twin_that_another_process_trains_is_left_to_it(
    work: tuple[Job, Request],
) -> None:
    job, request = work
    assert job.twin is not None
    with locked(job.twin.folder):
        assert do(job, request) is not None
    assert Run(job.folder).finished
    assert not Run(job.twin.folder).begun


def test_a_training_that_dies_between_the_results_writes_the_other_alone(
    work: tuple[Job, Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, request = work
    assert job.twin is not None
    finish = Log.finish

    def die(log: Log, *given: Any) -> dict[str, Any]:
        if log.folder == job.folder:
            raise KeyboardInterrupt
        return finish(log, *given)

    monkeypatch.setattr(Log, "finish", die)
    with pytest.raises(KeyboardInterrupt):
        do(job, request)
    monkeypatch.undo()
    before = files(job.twin.folder)
    assert "result.json" in before
    monkeypatch.setattr(module, "data_of", lambda *_: pictures())
    assert do(job, request) is not None
    assert files(job.twin.folder) == before

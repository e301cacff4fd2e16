"""Runs that are killed end as if they had not been."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from safetensors.torch import load_file

from flatmin.experiments import train
from flatmin.experiments.runs import record
from flatmin.experiments.runs.record import Run
from flatmin.experiments.state import State
from tests.experiments.loop import jobs
from tests.experiments.loop.problems import pictures, same, trained, without_time


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Real processes that have imported torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "tests.experiments.loop.jobs",
            "torch.utils.tensorboard",
            "torchvision.transforms.v2",
            "scipy.special",
        ]
    )
    return context


def killed(
    context: ForkServerContext, name: str, folder: Path, moment: int
) -> int | None:
    process = context.Process(target=jobs.begin, args=(name, folder, moment))
    process.start()
    process.join(120)
    return process.exitcode


@pytest.mark.parametrize("name", jobs.RUNS)
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    name: str, tmp_path: Path, processes: ForkServerContext
) -> None:
    data, experiment = pictures(), jobs.killed_at(name)
    whole = trained(experiment, tmp_path / "whole", data)
    folder = tmp_path / "parts"
    for moment in range(len(jobs.MOMENTS[name])):
        code = killed(processes, name, folder, moment)
        assert code == -signal.SIGKILL, f"moment {moment}: {code}"
    parts = trained(experiment, folder, data)
    check(whole, parts)
    assert not (folder / "checkpoint.json").exists()
    assert not (folder / "checkpoint").exists()


def check(whole: Run, parts: Run) -> None:
    assert same(parts.weights(), whole.weights())
    one, other = whole.result(), parts.result()
    assert one is not None
    assert other is not None
    assert without_time(other) == without_time(one)
    lines = [without_time(line) for line in whole.metrics()]
    assert [without_time(line) for line in parts.metrics()] == lines
    for name in ("labels", "predictions"):
        path = f"{name}.safetensors"
        a, b = (load_file(store.folder / path) for store in (whole, parts))
        assert same(a, b)


def test_without_checkpoint_in_time_it_begins_anew_to_the_same_end(
    tmp_path: Path,
) -> None:
    data, experiment = pictures(), jobs.killed_at("sam with an average")
    whole = trained(experiment, tmp_path / "whole", data)

    class Killed(Exception):
        pass

    def stop(step: int, steps: int) -> None:
        assert steps == 9
        if step == 7:
            raise Killed

    with pytest.raises(Killed):
        trained(experiment, tmp_path / "parts", data, tick=stop)
    assert len(Run(tmp_path / "parts").metrics()) == 2
    assert not (tmp_path / "parts" / "checkpoint.json").exists()
    check(whole, trained(experiment, tmp_path / "parts", data))


def test_a_checkpoint_at_the_end_of_an_epoch_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch may have as many steps as there are between two questions."""
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(train, "_ASK_EVERY", 3)
    saved = []
    real = State.save

    def save(state: State, folder: Path) -> None:
        saved.append((state.step, len(Run(folder).metrics())))
        real(state, folder)

    monkeypatch.setattr(State, "save", save)
    trained(jobs.killed_at("sgd"), tmp_path)
    assert saved == [(3, 1), (6, 2), (9, 2)]


@pytest.mark.everything
@pytest.mark.parametrize("name", jobs.RUNS)
def test_what_fails_after_the_last_step_costs_no_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, experiment = pictures(), jobs.killed_at(name)
    whole = trained(experiment, tmp_path / "whole", data)
    steps: list[int] = []

    def refuse(*_: object) -> bytes:
        raise RuntimeError("some tensors share memory")

    with monkeypatch.context() as patched:
        patched.setattr(record, "packed", refuse)
        # The labels are packed before.
        patched.setattr(Run, "keep_labels", lambda *_: None)
        with pytest.raises(RuntimeError, match="share memory"):
            trained(experiment, tmp_path / "parts", data)
    parts = trained(
        experiment, tmp_path / "parts", data, tick=lambda step, _: steps.append(step)
    )
    # The second of two trainings had not begun.
    assert steps == (list(range(1, 10)) if experiment.bootstrap else [])
    check(whole, parts)


def test_of_checkpoints_the_last_alone_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(train, "_ASK_EVERY", 1)
    seen = []

    def look(step: int, steps: int) -> None:
        del steps
        home = tmp_path / "checkpoint"
        seen.append((step, sorted(p.name for p in home.glob("*"))))

    trained(jobs.killed_at("sgd"), tmp_path, tick=look)
    assert seen[0] == (1, [])
    assert seen[1:] == [(k, [f"step-{k - 1}"]) for k in range(2, 10)]


def test_time_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0.0)
    experiment = jobs.killed_at("sgd")

    def stop(step: int, steps: int) -> None:
        del steps
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(experiment, tmp_path, tick=stop)
    (first,) = [m["seconds"] for m in Run(tmp_path).metrics()]
    lines = trained(experiment, tmp_path).metrics()
    assert lines[0]["seconds"] == first
    assert first < lines[1]["seconds"] < lines[2]["seconds"]


@pytest.mark.parametrize("name", jobs.RUNS)
@pytest.mark.parametrize("left", [5, 7])
def test_a_run_that_is_left_by_an_exception_ends_alike(
    name: str, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 5th step is in the middle of an epoch, the 7th after a line of metrics."""
    data, experiment = pictures(), jobs.killed_at(name)
    whole = trained(experiment, tmp_path / "whole", data)
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(train, "_ASK_EVERY", 1)

    def stop(step: int, steps: int) -> None:
        del steps
        if step == left:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(experiment, tmp_path / "parts", data, tick=stop)
    check(whole, trained(experiment, tmp_path / "parts", data))

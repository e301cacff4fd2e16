import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flatmin.experiments import readers
from flatmin.experiments import sweep as package
from flatmin.experiments.errors import BadInput
from flatmin.experiments.jobs import Request
from flatmin.experiments.sweep import command, environment, sweep
from tests.experiments.helpers import Program
from tests.experiments.sweep.helpers import (
    CELL,
    home,
    quiet,
    smoke,
    starts,
    surroundings,
    trials,
)


def test_a_helper_gets_the_command_as_it_was_given(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(CELL, ("rho=[0.1]", "lr=3"), True, tmp_path / "o", tmp_path / "d")
    seen: list[object] = []

    def noted(*arguments: object) -> None:
        seen.extend(arguments)

    monkeypatch.setattr("flatmin.experiments.sweep.sweep", noted)
    monkeypatch.setenv(
        "FLATMIN_STORAGE", environment(0, 2, "sqlite:///x.db")["FLATMIN_STORAGE"]
    )
    words = command(request)
    assert words[:3] == [sys.executable, "-m", "flatmin"]
    assert program(*words[3:])[0] == 0
    assert (seen[0], *seen[2:]) == (request, "sqlite:///x.db", 1)


def test_workers_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    found = [environment(k, 3, None) for k in range(3)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == ["4", "7", "4"]
    assert {one["OMP_NUM_THREADS"] for one in found} == {"2"}


@pytest.mark.parametrize("workers", [0, -1, 10**9])
def test_a_number_of_workers_that_cannot_be_meant_is_one_line(
    workers: int, program: Program, tmp_path: Path
) -> None:
    arguments = ("sweep", CELL, "--smoke", "--out", tmp_path, "--workers", workers)
    code, out, err = program(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "workers" in err
    with pytest.raises(BadInput, match=f"workers: .* got {workers}"):
        sweep(smoke(tmp_path), quiet(), workers=workers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "script", ["import sys; sys.exit(2)", "import os; os.kill(os.getpid(), 9)"]
)
def test_what_a_helper_leaves_is_trained_by_the_command_itself(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [sys.executable, "-S", "-c", script]
    monkeypatch.setattr(package, "command", lambda request: failing)
    assert sweep(smoke(tmp_path, "rho=[0.1,0.2]"), quiet(), workers=2)
    assert starts(tmp_path) == {0.1: 1, 0.2: 1}


@pytest.mark.parametrize("answer", ["signal.default_int_handler", "signal.SIG_IGN"])
def test_helpers_end_when_the_command_refuses_its_input(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "_PATIENCE", 1.0)
    folder = home(tmp_path) / "rho-0.1" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    script = f"signal.signal(signal.SIGINT, {answer}); time.sleep(1000)"
    endless = [sys.executable, "-S", "-c", f"import signal, time; {script}"]
    monkeypatch.setattr(package, "command", lambda request: endless)
    with pytest.raises(ValueError, match="is not empty and no run folder"):
        sweep(smoke(tmp_path, "rho=[0.1,0.2]"), quiet(), workers=2)


def test_workers_are_processes_that_share_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", surroundings()["PYTHONPATH"])
    train = package.train_job

    def patient(*arguments: Any) -> Any:
        """Trains when the helper has trained the other point."""
        other = home(tmp_path) / "rho-0.2" / "seed-0" / "result.json"
        for _ in range(600):
            if other.exists():
                return train(*arguments)
            time.sleep(0.1)
        raise AssertionError("no process has come to help")

    monkeypatch.setattr(package, "train_job", patient)
    assert sweep(smoke(tmp_path, "rho=[0.1,0.2]"), quiet(), workers=2)
    found = trials(tmp_path)
    assert [trial.params["rho"] for trial in found] == [0.1, 0.2]
    assert starts(tmp_path) == {0.1: 1, 0.2: 1}
    commands = [
        json.loads((home(tmp_path) / f"rho-{rho}/seed-0/environment.jsonl").read_text())
        for rho in (0.1, 0.2)
    ]
    assert "--workers=1" not in commands[0]["command"]
    assert "--workers=1" in commands[1]["command"]


#: Ends when its input does, and says so.
PATIENT = "import os, sys; os.read(0, 1); open(sys.argv[1], 'w').close()"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_helpers_of_a_killed_command_lose_their_input(
    how: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [tmp_path / "ready", tmp_path / "ended"]
    helper = [sys.executable, "-S", "-c", PATIENT, str(said[1])]
    monkeypatch.setattr(package, "command", lambda request: helper)

    def first() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with package._helpers(smoke(tmp_path), None, 2):
            said[0].touch()
            time.sleep(1000)

    process = multiprocessing.get_context("fork").Process(target=first)
    process.start()
    await_file(said[0])
    assert process.pid is not None
    os.kill(process.pid, how)
    process.join()
    await_file(said[1])


def await_file(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path.name} never came")


def test_a_process_ends_as_soon_as_its_input_does() -> None:
    mine, theirs = os.pipe()

    def helper() -> None:
        os.close(theirs)
        os.dup2(mine, 0)
        readers.end_with_input()
        time.sleep(1000)

    process = multiprocessing.get_context("fork").Process(target=helper)
    process.start()
    os.write(theirs, b"words mean nothing")
    os.close(theirs)
    os.close(mine)
    process.join(60)
    assert process.exitcode == 1


@pytest.mark.parametrize("helps", [True, False])
def test_helpers_alone_end_with_their_input(
    helps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[None] = []
    monkeypatch.setattr(package, "end_with_input", lambda: ends.append(None))
    if helps:
        name = package.HELPER
        monkeypatch.setenv(name, environment(0, 2, None)[name])
    with pytest.raises(BadInput, match="workers"):
        sweep(smoke(tmp_path), quiet(), workers=0)
    assert len(ends) == helps

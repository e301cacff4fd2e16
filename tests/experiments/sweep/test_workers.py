import os
import sys
from pathlib import Path

import pytest

from flatmin.experiments.errors import BadInput
from flatmin.experiments.runs import Order
from flatmin.experiments.sweep import _workers as many_processes
from flatmin.experiments.sweep import sweep
from flatmin.experiments.sweep._workers import command, environment
from tests.experiments.helpers import Program
from tests.experiments.sweep.helpers import (
    CELL,
    quiet,
    said,
    smoke,
    starts,
    surroundings,
    trials,
)


def test_a_worker_gets_the_command_as_it_was_given(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = Order(CELL, ("rho=[0.1]", "lr=3"), True, tmp_path / "o", tmp_path / "d")
    seen: list[object] = []

    def noted(*arguments: object) -> None:
        seen.extend(arguments)

    monkeypatch.setattr("flatmin.experiments.sweep.sweep", noted)
    monkeypatch.setenv(
        "FLATMIN_STORAGE", environment(0, 2, "sqlite:///x.db")["FLATMIN_STORAGE"]
    )
    words = command(order)
    assert words[:3] == [sys.executable, "-m", "flatmin"]
    assert program(*words[3:])[0] == 0
    assert (seen[0], *seen[2:]) == (order, "sqlite:///x.db", 1)


def test_workers_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    found = [environment(k, 3, None) for k in range(3)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == ["4", "7", "4"]
    assert {one["OMP_NUM_THREADS"] for one in found} == {"2"}


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit('flatmin: the disk is full.')", "^the disk is full.$"),
        ("import os; os.kill(os.getpid(), 9)", r"killed \(SIGKILL\)"),
    ],
)
def test_what_a_worker_ends_with_is_said_once(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [sys.executable, "-S", "-c", script]
    monkeypatch.setattr(many_processes, "command", lambda order: failing)
    with pytest.raises(BadInput, match=message):
        sweep(smoke(tmp_path), quiet(), workers=2)


def test_workers_are_processes_that_share_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", surroundings()["PYTHONPATH"])
    console = quiet()
    assert sweep(smoke(tmp_path, "rho=[0.1,0.2]"), console, workers=2)
    found = trials(tmp_path)
    assert [trial.params["rho"] for trial in found] == [0.1, 0.2]
    assert starts(tmp_path) == {0.1: 1, 0.2: 1}
    assert said(console).count("rho 0.1: validation error") == 1

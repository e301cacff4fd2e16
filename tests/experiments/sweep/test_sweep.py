import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from safetensors.torch import load_file

from flatmin.experiments import sweep as package
from flatmin.experiments.errors import BadInput
from flatmin.experiments.sweep import sweep
from tests.experiments.helpers import Program
from tests.experiments.sweep.helpers import (
    CELL,
    EPOCHS,
    RHOS,
    home,
    quiet,
    said,
    smoke,
    starts,
    surroundings,
    trials,
)

#: A worker that says when it is ready and waits to be told to begin.
WAITING_WORKER = """
import sys
from flatmin.experiments import cli, sweep
print("ready", flush=True)
sys.stdin.readline()
cli.main()
"""

#: A worker that is killed in the second step of the third point.
KILLED_WORKER = """
import os, signal
from flatmin.experiments import cli, train

step = train.Training.step

def killed(training, groups):
    step(training, groups)
    if training.experiment.rho == 0.05 and training.state.step == 2:
        os.kill(os.getpid(), signal.SIGKILL)

train.Training.step, train.CHECKPOINT_EVERY = killed, 0.0
cli.main()
"""


def worker(script: str, out: Path, *arguments: str) -> list[str]:
    words = ["sweep", CELL, "--smoke", f"--out={out}", *arguments]
    return [sys.executable, "-c", script, *words]


def weights(out: Path) -> dict[str, bytes]:
    return {
        path.parent.parent.name: path.read_bytes()
        for path in home(out).glob("*/seed-0/weights.safetensors")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that nothing has disturbed."""
    out = tmp_path_factory.mktemp("whole")
    assert sweep(smoke(out, EPOCHS), quiet())
    return out


def test_a_sweep_trains_every_point_and_names_the_best(whole: Path) -> None:
    found = trials(whole)
    assert [trial.params for trial in found] == [{"rho": rho} for rho in RHOS]
    assert {trial.state for trial in found} == {TrialState.COMPLETE}
    results = [
        json.loads((home(whole) / f"rho-{rho}" / "seed-0" / "result.json").read_text())
        for rho in RHOS
    ]
    errors = [result["test_error"] for result in results]
    assert [trial.value for trial in found] == errors
    record = json.loads((home(whole) / "best.json").read_text())
    rho = RHOS[errors.index(min(errors))]
    assert record["point"] == {"rho": rho}
    assert record["validation_error"] == min(errors)
    assert f"| **{rho}** |" in (home(whole) / "table.md").read_text()


def test_a_finished_sweep_trains_nothing_and_shows_its_table(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise AssertionError("a finished point is trained again")

    monkeypatch.setattr(package, "train_job", none)
    console = quiet()
    assert sweep(smoke(whole, EPOCHS), console)
    assert "To train with the best: flatmin train table4/noise-40/sam" in said(console)
    assert set(starts(whole).values()) == {1}


def test_two_processes_that_start_together_train_every_point_once(
    tmp_path: Path,
) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with ExitStack() as stack:
        both = [
            stack.enter_context(
                subprocess.Popen(
                    worker(WAITING_WORKER, tmp_path),
                    text=True,
                    env=surroundings(),
                    **pipes,
                )
            )
            for _ in range(2)
        ]
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in both:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    found = trials(tmp_path)
    assert {trial.state for trial in found} == {TrialState.COMPLETE}
    assert sorted(trial.params["rho"] for trial in found) == RHOS
    assert starts(tmp_path) == dict.fromkeys(RHOS, 1)
    assert (home(tmp_path) / "best.json").exists()


def test_a_killed_process_leaves_its_point_to_the_next_which_ends_it_alike(
    whole: Path, tmp_path: Path
) -> None:
    killed = worker(KILLED_WORKER, tmp_path, f"--set={EPOCHS}")
    code = subprocess.run(killed, env=surroundings(), capture_output=True, check=False)
    assert code.returncode == -9, code.stderr
    assert starts(tmp_path) == {0.01: 1, 0.02: 1, 0.05: 1}
    assert (home(tmp_path) / "rho-0.05" / "seed-0" / "checkpoint.json").exists()

    assert sweep(smoke(tmp_path, EPOCHS), quiet())
    assert starts(tmp_path) == {**dict.fromkeys(RHOS, 1), 0.05: 2}
    tables = [(home(out) / "table.md").read_text() for out in (tmp_path, whole)]
    assert tables[0] == tables[1]
    assert weights(tmp_path) == weights(whole)
    assert len(weights(whole)) == 6


def test_the_value_of_a_point_is_the_mean_over_seeds(tmp_path: Path) -> None:
    assert sweep(smoke(tmp_path, "seeds=2", "rho=[0.2]"), quiet())
    folder = home(tmp_path) / "rho-0.2"
    errors = [
        json.loads((folder / f"seed-{k}" / "result.json").read_text())["test_error"]
        for k in range(2)
    ]
    configs = [
        json.loads((folder / f"seed-{k}" / "config.json").read_text())["experiment"]
        for k in range(2)
    ]
    assert [config["seed"] for config in configs] == [0, 1]
    (trial,) = trials(tmp_path)
    assert trial.value == sum(errors) / 2
    assert trial.user_attrs["errors"] == errors


def test_a_run_that_diverges_has_the_worst_error(tmp_path: Path) -> None:
    assert sweep(smoke(tmp_path, "rho=[0.2]", "lr=1e30", EPOCHS), quiet())
    folder = home(tmp_path) / "rho-0.2" / "seed-0"
    found = load_file(folder / "weights.safetensors")
    assert any(not w.isfinite().all() for w in found.values())
    (trial,) = trials(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    assert trial.value == result["test_error"] == 100.0


def test_a_sweep_under_torchrun_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="without torchrun"):
        sweep(smoke(tmp_path), quiet())


def test_what_cannot_be_trained_ends_the_sweep_and_stays_in_line(
    program: Program, tmp_path: Path
) -> None:
    folder = home(tmp_path) / "rho-0.01" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    code, _, err = program("sweep", CELL, "--smoke", "--out", tmp_path)
    assert code == 2
    assert err.count("\n") == 1
    assert "rho-0.01/seed-0 is not empty and no run folder" in err
    states = [trial.state for trial in trials(tmp_path)]
    assert states == [TrialState.FAIL] + [TrialState.WAITING] * 5
    (folder / "thesis.tex").unlink()
    assert sweep(smoke(tmp_path), quiet())

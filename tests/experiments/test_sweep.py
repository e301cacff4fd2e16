import io
import json
import os
import shlex
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console
from safetensors.torch import load_file

import flatmin
from flatmin.experiments.datasets import Tensors
from flatmin.experiments.datasets.tiny import write_tiny
from flatmin.experiments.errors import BadInput
from flatmin.experiments.folders import point_folder
from flatmin.experiments.recipes import recipe
from flatmin.experiments.runs import Order, data_of
from flatmin.experiments.sweep import _sweep as one_process
from flatmin.experiments.sweep import _workers as many_processes
from flatmin.experiments.sweep import sweep
from flatmin.experiments.sweep._grid import grid
from flatmin.experiments.sweep._queue import Queue, Standing
from flatmin.experiments.sweep._table import best, markdown, report, train_command
from flatmin.experiments.sweep._workers import command, environment
from tests.experiments.helpers import Program

CELL = "table4/noise-40/sam"
RHOS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]

#: Three steps, of which a checkpoint follows each.
EPOCHS = "epochs=3"

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
from flatmin.experiments import cli, run, runs

train = runs.train

def killed(fabric, experiment, data, folder, watch, tick):
    def tick_or_die(step, steps):
        tick(step, steps)
        if experiment.rho == 0.05 and step == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    return train(fabric, experiment, data, folder, watch, tick_or_die)

runs.train, run.CHECKPOINT_EVERY = killed, 0.0
cli.main()
"""


def smoke(out: Path, *settings: str, name: str = CELL) -> Order:
    return Order(name, settings, small=True, root=out)


def home(out: Path) -> Path:
    return out / "sweep" / CELL


def quiet() -> Console:
    return Console(file=io.StringIO(), width=80)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def trials(out: Path) -> list[optuna.trial.FrozenTrial]:
    url = f"sqlite:///{home(out) / 'study.db'}"
    return optuna.load_study(study_name=None, storage=url).trials


def starts(out: Path) -> dict[float, int]:
    """How often each point's run was started."""
    return {
        rho: len((folder / "seed-0" / "environment.jsonl").read_text().splitlines())
        for rho in RHOS
        if (folder := home(out) / f"rho-{rho}").exists()
    }


def weights(out: Path) -> dict[str, bytes]:
    return {
        path.parent.parent.name: path.read_bytes()
        for path in home(out).glob("*/seed-0/weights.safetensors")
    }


def worker(script: str, out: Path, *arguments: str) -> list[str]:
    words = ["sweep", CELL, "--smoke", f"--out={out}", *arguments]
    return [sys.executable, "-c", script, *words]


def surroundings() -> dict[str, str]:
    """The package under test, for another process."""
    here = str(Path(str(flatmin.__file__)).parent.parent)
    return {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that nothing has disturbed."""
    out = tmp_path_factory.mktemp("whole")
    assert sweep(smoke(out, EPOCHS), quiet())
    return out


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


# The grid.


def test_the_grid_is_the_papers_with_a_tenth_held_out(tmp_path: Path) -> None:
    what = grid(Order(CELL, root=tmp_path))
    assert [point["rho"] for point in what.points] == RHOS
    (cell,) = recipe(CELL).cells
    for point in what.points:
        expected = {"rho": point["rho"], "validation": 0.1, "seed": 3}
        assert what.experiment(point, 3) == cell.arms[0].model_copy(update=expected)


def test_the_validation_images_are_a_tenth_of_those_of_training(
    tmp_path: Path,
) -> None:
    write_tiny("cifar10", tmp_path, per_class=10)
    order = Order(CELL, data=tmp_path)
    what = grid(order)
    every = data_of(what.arm.model_copy(update={"validation": 0.0}), order)
    data = data_of(what.experiment(what.points[0]), order)

    def images(split: Any) -> list[bytes]:
        assert isinstance(split, Tensors)
        return [x.numpy().tobytes() for x in split.x]

    trained, held = images(data.train), images(data.test)
    assert len(held) == 10
    assert not set(trained) & set(held)
    assert sorted(trained + held) == sorted(images(every.train))
    assert data.test.y.bincount().tolist() == [1] * 10


def test_lists_are_axes_and_the_last_one_runs_fastest(tmp_path: Path) -> None:
    what = grid(smoke(tmp_path, "rho=[0.1,1]", "spectrum_at=[1]", "batch_size=[4,8]"))
    assert what.axes == {"rho": (0.1, 1.0), "batch_size": (4, 8)}
    assert what.points == [
        {"rho": 0.1, "batch_size": 4},
        {"rho": 0.1, "batch_size": 8},
        {"rho": 1.0, "batch_size": 4},
        {"rho": 1.0, "batch_size": 8},
    ]
    assert what.arm.spectrum_at == (1,)


def test_another_axis_comes_on_top_of_the_papers_grid(tmp_path: Path) -> None:
    assert len(grid(smoke(tmp_path, "lr=[0.1,0.2,0.3]")).points) == 18
    assert grid(smoke(tmp_path, "lr=[0.1]", "rho=0.3")).points == [{"lr": 0.1}]


def test_other_settings_have_another_study_and_another_grid_has_not() -> None:
    name = grid(Order(CELL)).name
    assert grid(Order(CELL, ("rho=[0.3]",))).name == name
    assert grid(Order(CELL, ("epochs=3",))).name != name
    assert grid(Order(CELL, ("seeds=3",))).name != name
    assert grid(Order(CELL, ("rho=[0.3]", "lr=[0.1]"))).name != name


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("table4", (), "one cell with one arm. Choose one, such as table4/noise-20/s"),
        ("table4/noise-40", (), "such as table4/noise-40/sam, table4/noise-40/boots"),
        ("table4/noise-40/sgd", (), "is not what a sweep needs"),
        ("table4/noise-40/huang", (), "is not what a sweep needs"),
        ("table4/noise-40/sma", (), "did you mean 'table4/noise-40/sam'"),
        (CELL, ("rho=0.1",), "nothing to sweep"),
        (CELL, ("rho=[]",), "rho: a grid is a list of numbers"),
        (CELL, ('rho=["a"]',), "rho: a grid is a list of numbers"),
        (CELL, ("rho=[0.1,true]",), "rho: a grid is a list of numbers"),
        (CELL, ("rho=[0.1,0.1]",), "rho: the grid has a number twice"),
        (CELL, ("rho=[0.1,-1]",), "rho: Input should be greater than or equal to 0"),
        (CELL, ("batch_size=[256,100]",), "batch_size 100 is not a multiple of m 32"),
        (CELL, ("validation=0",), "validation: a sweep holds some training images out"),
        (CELL, ("seeds=[1,2]",), "seeds: must be a whole number"),
        (CELL, ("seed=[1,2]",), "seed: a recipe runs seeds 0, 1"),
        (CELL, ("precision=[1]",), "precision: Input should be"),
    ],
)
def test_what_cannot_be_swept_is_refused(
    name: str, settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadInput) as refused:
        grid(Order(name, settings))
    assert message in str(refused.value)


# The queue.


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


# Several machines: one data base, folders of their own.


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


# Whole sweeps.


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

    monkeypatch.setattr(one_process, "train_job", none)
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
    assert [t.value for t in trials(tmp_path)] == [t.value for t in trials(whole)]
    assert weights(tmp_path) == weights(whole)
    assert len(weights(whole)) == 6


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


def test_a_run_that_diverges_has_the_error_it_has(tmp_path: Path) -> None:
    assert sweep(smoke(tmp_path, "rho=[0.2]", "lr=1e30", EPOCHS), quiet())
    folder = home(tmp_path) / "rho-0.2" / "seed-0"
    found = load_file(folder / "weights.safetensors")
    assert any(not w.isfinite().all() for w in found.values())
    (trial,) = trials(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    assert trial.value == result["test_error"]


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


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:////nowhere/at/all.db", "sqlite:////nowhere/at/all.db: unable to op"),
        ("nonsense", "cannot open the data base of --storage: Could not parse"),
        ("postgresql+nodriver://me:secret@host/base", "me:***@host/base: "),
    ],
)
def test_a_data_base_that_cannot_be_reached_is_one_line(
    url: str, words: str, program: Program, tmp_path: Path
) -> None:
    arguments = ("sweep", CELL, "--smoke", "--out", tmp_path, "--storage", url)
    code, out, err = program(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err
    assert "secret" not in err


# Workers.


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


# The table.


def standings(*errors: tuple[float, ...]) -> list[Standing]:
    rhos = RHOS[: len(errors)]
    return [Standing({"rho": r}, e) for r, e in zip(rhos, errors, strict=True)]


def test_the_best_point_has_the_lowest_mean_and_of_equals_the_first() -> None:
    found = standings((30.0, 10.0), (18.0, 20.0), (19.0, 19.0), (9.0, 40.0))
    assert best(found).point == {"rho": 0.02}


def test_the_table_has_the_interval_of_several_seeds() -> None:
    # Student's t of 0.975 with 1 degree of freedom is 12.706.
    assert markdown(standings((10.0, 12.0), (5.0, 5.0))) == (
        "| rho | validation error %, mean ± 95 % interval of 2 seeds |\n"
        "| --- | --- |\n"
        "| 0.01 | 11.00 ± 12.71 |\n"
        "| **0.02** | **5.00 ± 0.00** |\n"
    )
    assert markdown(standings((10.0,))).endswith("| **0.01** | **10.00** |\n")


def test_an_unfinished_sweep_says_what_is_left(tmp_path: Path) -> None:
    order, console = smoke(tmp_path), quiet()
    found = standings((10.0,), (), ())
    assert not report(grid(order), found, order, tmp_path, console)
    assert " ".join(said(console).split()) == (
        "2 of 3 points are left: rho 0.02; rho 0.05. The same command continues."
    )
    assert list(tmp_path.iterdir()) == []


def test_the_report_fits_80_columns(tmp_path: Path) -> None:
    order, console = smoke(tmp_path, "weight_decay=[0.0005]"), quiet()
    found = [Standing({"rho": r, "weight_decay": 5e-4}, (r, 2.0)) for r in RHOS]
    assert report(grid(order), found, order, tmp_path, console)
    lines = said(console).splitlines()
    assert max(len(line) for line in lines if "flatmin train" not in line) <= 80
    assert sum(line.rstrip().endswith("best") for line in lines) == 1


def test_the_command_that_trains_is_accepted_with_the_settings_of_the_sweep(
    tmp_path: Path,
) -> None:
    settings = ("epochs=7", "seeds=2", "rho=[0.1,0.2]", "validation=0.2")
    order = smoke(tmp_path, *settings)
    what = grid(order)
    words = shlex.split(train_command(what, order, what.points[1]))
    assert words == [
        *("flatmin", "train", CELL, "--set", "epochs=7", "--set", "rho=0.2", "--smoke")
    ]
    (cell,) = Order(CELL, ("epochs=7", "rho=0.2")).recipe().cells
    assert (cell.arms[0].rho, cell.arms[0].validation) == (0.2, 0.0)

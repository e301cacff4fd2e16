"""What two real processes train is what one trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from flatmin.experiments import evaluate, tasks
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import DataSet, flip_labels
from flatmin.experiments.errors import BadInput
from flatmin.experiments.jobs import jobs, train_all
from flatmin.experiments.launch import launched
from flatmin.experiments.runs.record import Run
from flatmin.experiments.train import Training
from tests.experiments.loop import two
from tests.experiments.loop.problems import (
    CLASSES,
    pictures,
    same,
    trained,
    without_time,
)

ROOT = Path(__file__).parents[3]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

#: Not of the weights: each process sees the images of its own groups alone.
RUNNING = ("running_mean", "running_var", "num_batches_tracked")


def started(root: Path, what: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *TORCHRUN, "-m", two.__name__, str(root), what],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left: one start, ended by SIGKILL in one, and another."""
    root = tmp_path_factory.mktemp("both")
    first = started(root, "begin")
    assert "Signal 9 (SIGKILL)" in first.stderr, first.stderr
    assert Run(two.folder(root, "killed")).result() is None
    assert (two.folder(root, "killed") / "checkpoint.json").exists()
    second = started(root, "end")
    assert second.returncode == 0, second.stderr
    return root


@pytest.fixture(scope="module")
def data() -> DataSet:
    return pictures(27, 13)


def compare(one: Run, other: Run, atol: float = 0.0) -> None:
    """Weights, metrics and result."""
    for name, w in one.weights().items():
        torch.testing.assert_close(other.weights()[name], w, rtol=0, atol=atol)
    pairs = [
        *zip(one.metrics(), other.metrics(), strict=True),
        (one.result() or {}, other.result() or {}),
    ]
    for a, b in pairs:
        assert set(a) == set(b)
        for name, value in without_time(a).items():
            near = None if value is None else pytest.approx(value, rel=1e-5, abs=1e-6)
            assert b[name] == near, name


@pytest.mark.parametrize("name", [name for name in two.RUNS if name != "with norm"])
def test_a_network_without_batch_norm_ends_alike(
    name: str, both: Path, data: DataSet, tmp_path: Path
) -> None:
    one = trained(two.RUNS[name], tmp_path, data)
    # Two gradients have one sum; four are added up in another order.
    atol = 1e-6 if name == "several groups each" else 0.0
    compare(one, Run(two.folder(both, name)), atol)


def test_with_batch_norm_all_but_the_running_statistics_is_alike(
    both: Path, data: DataSet, tmp_path: Path
) -> None:
    one = trained(two.RUNS["with norm"], tmp_path, data)
    other = Run(two.folder(both, "with norm"))
    weights = other.weights()
    for name, w in one.weights().items():
        if name.endswith(RUNNING):
            assert not torch.equal(weights[name], w)
        else:
            assert torch.equal(weights[name], w), name
    for a, b in zip(one.metrics(), other.metrics(), strict=True):
        for name in ("train_loss", "sharpness", "error_sharpness", "gradient_examples"):
            assert b[name] == pytest.approx(a[name], rel=1e-5)


def test_what_is_reported_is_measured_with_the_statistics_that_are_stored(
    both: Path, data: DataSet, tmp_path: Path
) -> None:
    """Those of the first process; the others test their images with them too."""
    experiment, found = two.RUNS["with norm"], Run(two.folder(both, "with norm"))
    frozen = experiment.model_copy(update={"lr": 1e-30, "ema": None, "steps": 1})
    result = found.result()
    assert result is not None

    fabric = launched(frozen)
    training = Training(fabric, frozen, data)
    model, read = training.model, training.batches
    model.load_state_dict(found.weights())
    assert torch.equal(read.y, flip_labels(data.train.y, 0.2, CLASSES, 0))
    for split, name in ((read.test, "test"), (read.plain, "train")):
        tested, _ = evaluate.tested(fabric, model, split(), tasks.CLASSIFY)
        assert isinstance(tested, tasks.Tested)
        assert tested.error == pytest.approx(result[f"{name}_error"])
        assert tested.loss == pytest.approx(result[f"{name}_loss"], rel=1e-5)
    predicted = load_file(found.folder / "predictions.safetensors")
    assert predicted.keys() == {"test", "last"}
    assert torch.equal(predicted["test"], evaluate.predictions(model, read.test()))
    numbers = evaluate.flatness(training.state.network, list(read.plain()), 0.05)
    assert numbers["sharpness"] == pytest.approx(result["sharpness"], rel=1e-3)
    assert numbers["lambda_max"] == pytest.approx(result["lambda_max"], rel=0.02)


def weights_of_cells(request: Any) -> list[dict[str, torch.Tensor]]:
    found = jobs(request.recipe(), request.root)
    return [Run(job.folder).weights() for job in found]


def test_a_cell_of_a_recipe_ends_alike(both: Path, tmp_path: Path) -> None:
    assert train_all(two.request(tmp_path), Console(file=StringIO()))
    cells = (weights_of_cells(two.request(root)) for root in (tmp_path, both))
    for one, other in zip(*cells, strict=True):
        for name, w in one.items():
            if not name.endswith(RUNNING):
                assert torch.equal(other[name], w), name


@pytest.mark.parametrize("name", two.SHARDED)
def test_sharded_weights_end_as_those_of_one_process(
    name: str, both: Path, data: DataSet, tmp_path: Path
) -> None:
    one = trained(two.SHARDED[name], tmp_path, data)
    compare(one, Run(two.folder(both, name)), atol=1e-12)


@pytest.mark.parametrize("name", ["killed", "left"])
def test_interrupted_processes_end_as_undisturbed_ones(name: str, both: Path) -> None:
    whole, parts = (Run(two.folder(both, folder)) for folder in (f"whole {name}", name))
    assert same(whole.weights(), parts.weights())
    assert list(map(without_time, parts.metrics())) == list(
        map(without_time, whole.metrics())
    )
    assert without_time(parts.result() or {}) == without_time(whole.result() or {})


def test_one_process_does_not_continue_what_two_have_begun(both: Path) -> None:
    with pytest.raises(BadInput, match=r"holds another experiment \(different: world"):
        train_all(two.request(both), Console(file=StringIO()))


def test_a_checkpoint_of_two_processes_is_not_continued_by_one(
    data: DataSet, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint.json").write_text(json.dumps({"step": 3, "world": 2}))
    with pytest.raises(BadInput, match="was begun by 2 processes, and now there are 1"):
        trained(two.KILLED, tmp_path, data)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_strategy_of_several_processes_is_refused_in_one(strategy: Any) -> None:
    experiment = Experiment(strategy=strategy, device="cpu")
    with pytest.raises(BadInput, match="needs several processes"):
        launched(experiment)


def test_a_device_that_is_not_there_is_refused() -> None:
    missing = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(BadInput, match=f"no {missing} device here"):
        launched(Experiment(device=missing))

"""What ``--dry-run`` says, against runs and against sums."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from flatmin.experiments import dry_run as module
from flatmin.experiments.dry_run import Estimate, estimate
from flatmin.experiments.models import build
from flatmin.experiments.processes import launched
from flatmin.experiments.runs import Order, jobs, train_all
from flatmin.experiments.store import RunStore
from tests.experiments.helpers import Program


@pytest.mark.parametrize(
    "name", ["table4/noise-40/bootstrap-sam", "table1/cifar10/shake-shake"]
)
def test_of_a_small_recipe_it_is_what_the_runs_take(name: str, tmp_path: Path) -> None:
    order = Order(name, small=True, root=tmp_path / "runs", data=tmp_path / "data")
    fabric = launched(jobs(order.recipe(), order.root)[0].experiment)
    found = {
        job.folder: estimate(fabric, job.experiment, order)
        for job in jobs(order.recipe(), order.root)
    }
    assert list(tmp_path.iterdir()) == []
    assert train_all(order, Console(file=StringIO()))
    for folder, guess in found.items():
        result = RunStore(folder).result()
        assert result is not None
        assert guess.parameters == result["parameters"]
        twice = 2 if "bootstrap" in name else 1
        assert guess.steps == twice * result["steps"]
        assert guess.gradient_examples == result["gradient_examples"]
        assert guess.seconds > 0


def test_of_a_recipe_it_is_what_the_paper_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CIFAR-10 has 50,000 images, which make 195 batches of 256."""
    order = Order("table1/cifar10/wrn-28-10-200", root=tmp_path, data=tmp_path)
    small = {"model": "wrn-10-1"}
    real = module._timed
    monkeypatch.setattr(
        module,
        "_timed",
        lambda fabric, experiment, order: real(
            fabric,
            experiment.model_copy(update={**small, "batch_size": 8, "m": 4}),
            order,
        ),
    )
    parameters = sum(p.numel() for p in build("wrn-10-1", 10).parameters())
    todo = jobs(order.recipe(), order.root)[:3]
    assert {(job.experiment.method, job.experiment.length) for job in todo} == {
        ("sam", 1),
        ("sgd", 1),
        ("sgd", 2),
    }
    for job in todo:
        e = job.experiment
        found = estimate(launched(e), e, order)
        steps = 200 * e.length * 195
        passes = 1 if e.method == "sgd" else 2
        assert found.parameters == parameters
        assert found.steps == steps
        assert found.gradient_examples == passes * steps * 256


def test_images_that_are_held_out_or_not_drawn_are_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_timed", lambda *_: (1, 2.0, 1e-3))
    order = Order("table8/noise-20", root=tmp_path, data=tmp_path)
    job = jobs(order.recipe(), order.root)[0]
    assert job.experiment.validation == 0.1
    found = estimate(launched(job.experiment), job.experiment, order)
    steps = 2 * job.experiment.epochs * (45_000 // 256)
    assert found == Estimate(1, steps, 2 * steps * 256, steps * 256 * 1e-3)
    part = job.experiment.model_copy(update={"train_examples": 1000, "validation": 0})
    found = estimate(launched(part), part, order)
    assert found.steps == 2 * part.epochs * (1000 // 256)


def test_it_prints_a_table_and_the_sum_and_writes_nothing(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_timed", lambda *_: (1234, 2.0, 1e-3))
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = program(
        "train", "c4", "--dry-run", "--out", tmp_path / "r", "--data", tmp_path / "d"
    )
    assert code == 0, err
    assert list(tmp_path.iterdir()) == []
    order = Order("c4", root=tmp_path / "r", data=tmp_path / "d")
    todo = jobs(order.recipe(), order.root)
    assert f"c4: {len(todo)} runs. Scale: paper." in out
    cells = {str(job.folder.parent.relative_to(order.root)) for job in todo}
    for line in cells:
        assert f"{line} " in out
    assert out.count("1,234") == len(cells)
    seconds = sum(
        195 * 256 * 1e-3 * job.experiment.epochs * job.experiment.length for job in todo
    )
    assert f"In all: {seconds / 3600:.1f} h, one run after the other." in out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1.04, "1.0 s"), (120, "2.0 min"), (7200, "2.0 h"), (172_800, "2.0 days")],
)
def test_times_are_in_units_that_people_use(seconds: float, words: str) -> None:
    assert module.duration(seconds) == words

"""What ``--dry-run`` says, against runs and against sums."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from flatmin.experiments import cost as module
from flatmin.experiments import evaluate
from flatmin.experiments.config import Experiment
from flatmin.experiments.cost import Cost, Images, Meter, estimate
from flatmin.experiments.dry_run import duration, images_of
from flatmin.experiments.errors import BadInput
from flatmin.experiments.jobs import Request, jobs, train_all
from flatmin.experiments.launch import launched
from flatmin.experiments.models import build
from flatmin.experiments.runs.record import Run
from tests.experiments.helpers import Program, image_folder
from tests.experiments.loop.problems import pictures, small, trained

#: Of the fake machine, in operations per second.
SPEED = 1e11


@pytest.mark.parametrize(
    "name", ["table4/noise-40/bootstrap-sam", "table1/cifar10/shake-shake"]
)
def test_of_a_small_recipe_it_is_what_the_runs_take(name: str, tmp_path: Path) -> None:
    request = Request(name, small=True, root=tmp_path / "runs", data=tmp_path / "data")
    todo = jobs(request.recipe(), request.root)
    meter = Meter(launched(todo[0].experiment), budget=60)
    found = {}
    for job in todo:
        images = images_of(job.experiment, request)
        cost = meter.cost(job.experiment, images)
        found[job.folder] = estimate(job.experiment, images, cost)
    assert list(tmp_path.iterdir()) == []
    assert train_all(request, Console(file=StringIO()))
    for folder, guess in found.items():
        result = Run(folder).result()
        assert result is not None
        assert guess.parameters == result["parameters"]
        twice = 2 if "bootstrap" in name else 1
        assert guess.steps == twice * result["steps"]
        assert guess.gradient_examples == result["gradient_examples"]
        assert guess.seconds > 0
        assert guess.tests > 0
        assert not guess.at_least


@pytest.mark.parametrize(
    ("fields", "gradients"),
    [
        ({"method": "sgd"}, 1.0),
        ({}, 2.0),
        ({"method": "interval_sam", "method_options": {"k": 4}}, 1.25),
        ({"method": "k_sam", "method_options": {"share": 0.5}, "m": 4}, 1.0),
    ],
)
def test_gradients_are_those_of_a_dozen_steps(
    fields: dict[str, Any], gradients: float
) -> None:
    experiment = small(**fields)
    cost = Meter(launched(experiment)).cost(experiment, Images.of(pictures()))
    assert cost.gradients == gradients
    network = build("wrn-10-1", 6)
    assert cost.parameters == sum(p.numel() for p in network.parameters())


def test_of_a_recipe_it_is_what_the_paper_trains(tmp_path: Path) -> None:
    """CIFAR-10 has 50,000 images, which make 195 batches of 256."""
    request = Request("table1/cifar10/wrn-28-10-200", root=tmp_path, data=tmp_path)
    todo = jobs(request.recipe(), request.root)[:3]
    assert {(job.experiment.method, job.experiment.length) for job in todo} == {
        ("sam", 1),
        ("sgd", 1),
        ("sgd", 2),
    }
    for job in todo:
        e = job.experiment
        passes = 1 if e.method == "sgd" else 2
        found = estimate(e, images_of(e, request), Cost(7, passes, 1e-3, 3e-4))
        steps = 200 * e.length * 195
        assert found.steps == steps
        assert found.gradient_examples == passes * steps * 256
        assert found.seconds == pytest.approx(passes * steps * 256 * 1e-3)


def test_images_that_are_held_out_or_not_drawn_are_not_trained(tmp_path: Path) -> None:
    request = Request("table8/noise-20", root=tmp_path, data=tmp_path)
    experiment = jobs(request.recipe(), request.root)[0].experiment
    assert experiment.validation == 0.1
    images = images_of(experiment, request)
    assert (images.train, images.test) == (45_000, 5_000)
    found = estimate(experiment, images, Cost(1, 2.0, 1e-3, 3e-4))
    assert found.steps == 2 * experiment.epochs * (45_000 // 256)
    part = experiment.model_copy(update={"train_examples": 1000, "validation": 0})
    images = images_of(part, request)
    assert (images.train, images.test) == (1000, 10_000)
    found = estimate(part, images, Cost(1, 2.0, 1e-3, 3e-4))
    assert found.steps == 2 * part.epochs * (1000 // 256)


@pytest.mark.parametrize(
    ("fields", "examples"),
    [
        # After each of 4 epochs, and the training set at the end.
        ({}, 4 * 10 + 26),
        ({"evaluate_every": 3}, 2 * 10 + 26),
        ({"evaluate_every": 3, "spectrum_at": (2,)}, 3 * 10 + 26),
        ({"evaluate_every": 4, "ema": 0.9}, 2 * 10 + 26),
    ],
)
def test_every_test_is_counted(
    fields: dict[str, Any],
    examples: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, experiment = pictures(26, 10), small(epochs=4, **fields)
    found = estimate(experiment, Images.of(data), Cost(1, 2.0, 3.0, 1.0))
    assert found.tests == examples
    assert (found.measurements > 0) == ("spectrum_at" in fields)
    tested: list[int] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor], _: Any) -> None:
        if isinstance(module, nn.Linear) and not torch.is_grad_enabled():
            tested.append(len(inputs[0]))

    monkeypatch.setattr(evaluate, "spectrum", lambda *_: {})
    hook = register_module_forward_hook(count)
    trained(experiment, tmp_path, data)
    hook.remove()
    check, *rest = tested
    assert check == 2
    assert sum(rest) == examples


def test_sharpness_takes_time() -> None:
    images = Images.of(pictures())
    found = estimate(small(flatness_rho=0.1), images, Cost(1, 2.0, 3.0, 1.0))
    assert found.measurements > 26 * 3.0


class Machine:
    """Knows the time, and how long it would take to train a network."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def training(self, fabric: Any, experiment: Experiment, data: Any) -> Any:
        """Slow, though not slower than the meter takes networks to be at the worst."""
        stand_in = experiment.model == "small-convnet"
        channels, side = data.train.x.shape[1], data.train.x.shape[-1]
        parameters, work = module._counted(
            experiment, len(data.classes), (channels, side, side)
        )
        state = SimpleNamespace(
            gradient_examples=0, means=SimpleNamespace(read=lambda _: None)
        )

        def step(_: Any) -> None:
            state.gradient_examples += 2 * experiment.batch_size
            if not stand_in:
                time = 2 * experiment.batch_size * work / (SPEED * module._REACHED)
                self.now += time

        if not stand_in:
            self.now += parameters / module._DRAWN
        return SimpleNamespace(
            state=state,
            step=step,
            train_mode=lambda: None,
            batches=SimpleNamespace(train=lambda _: iter([None] * 99)),
        )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(module, "Training", machine.training)
    monkeypatch.setattr(Meter, "_speed", lambda *_: SPEED)
    return machine


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("figure3-middle/m-1/rho-0.05", False),
        ("table1/cifar10/wrn-28-10-200/aa/sam", False),
        ("table2/resnet-50/100-epochs/sam", False),
        ("table2/resnet-152/100-epochs/sam", True),
        ("table3/flowers/l2/sam", True),
    ],
)
def test_a_cell_is_timed_within_six_seconds_or_bounded(
    name: str, bound: bool, machine: Machine
) -> None:
    """By a clock that is none: the slowest machine that the meter reckons with."""
    request = Request(name)
    experiment = jobs(request.recipe(), request.root)[0].experiment
    meter = Meter(launched(experiment), clock=machine.time)
    images = images_of(experiment, request)
    cost = meter.cost(experiment, images)
    assert 0 <= machine.now <= 6
    assert cost.at_least == bound
    _, work = meter._work(experiment, images)
    reached = 1 if bound else module._REACHED
    assert cost.seconds == pytest.approx(work / (SPEED * reached))
    assert estimate(experiment, images, cost).at_least == bound


def test_what_is_left_when_the_time_is_used_up_is_bounded(machine: Machine) -> None:
    experiment, images = small(), Images.of(pictures())
    meter = Meter(launched(experiment), clock=machine.time)
    assert not meter.cost(experiment, images).at_least
    machine.now = 20.0
    assert not meter.cost(experiment, images).at_least
    # The same network, with the same time of a gradient.
    assert not meter.cost(small(epochs=5, seed=1, lr=0.3), images).at_least
    assert meter.cost(small(model="wrn-16-8"), images).at_least


def test_steps_that_are_slower_than_expected_are_not_repeated(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    real: Callable[..., tuple[float, int]] = Meter._timed

    def slow(meter: Meter, training: Any, groups: Any) -> tuple[float, int]:
        nonlocal calls
        calls += 1
        machine.now += 6.0
        seconds, done = real(meter, training, groups)
        return 6.0 + seconds, done

    monkeypatch.setattr(Meter, "_timed", slow)
    experiment = small()
    meter = Meter(launched(experiment), clock=machine.time)
    meter.cost(experiment, Images.of(pictures()))
    assert calls == 1


def test_it_prints_a_table_and_the_sum_and_writes_nothing(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Meter, "cost", lambda *_: Cost(1234, 2.0, 1e-3, 3e-4, at_least=True)
    )
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = program(
        "train", "c4", "--dry-run", "--out", tmp_path / "r", "--data", tmp_path / "d"
    )
    assert code == 0, err
    assert list(tmp_path.iterdir()) == []
    request = Request("c4", root=tmp_path / "r", data=tmp_path / "d")
    todo = jobs(request.recipe(), request.root)
    assert f"c4: {len(todo)} runs. Scale: paper." in out
    cells = {str(job.folder.parent.relative_to(request.root)) for job in todo}
    for line in cells:
        assert f"{line} " in out
    assert out.count("1,234") == len(cells)
    seconds = 0.0
    for e in (job.experiment for job in todo):
        found = estimate(e, images_of(e, request), Cost(1234, 2.0, 1e-3, 3e-4))
        seconds += found.seconds + found.tests + found.measurements
        assert f"> {duration(found.seconds)} " in out
    assert f"In all: at least {duration(seconds)}, one run after the other." in out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1.04, "1.0 s"), (120, "2.0 min"), (7200, "2.0 h"), (172_800, "2.0 days")],
)
def test_times_are_in_units_that_people_use(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    "settings",
    [
        ("batch_size=64",),
        ("warmup=9", "epochs=9"),
        ("train_examples=31",),
    ],
)
def test_what_training_refuses_for_its_numbers_is_refused_in_the_same_words(
    settings: tuple[str, ...], program: Program, tmp_path: Path
) -> None:
    photos = image_folder(tmp_path / "photos", {"a": 19, "b": 19})
    usual = ("model=resnet-8", "batch_size=4", "m=4", "augment=[]", "seeds=1")
    given = [f"--set={one}" for one in (f"data={photos}", *usual, *settings)]
    out = tmp_path / "runs"
    said = [
        program("train", "figure1/sam", *given, "--out", out, *more)
        for more in ((), ("--dry-run",))
    ]
    (code, _, message), (again, printed, other) = said
    assert (code, message) == (again, other)
    assert (code, printed, message.count("\n")) == (2, "", 1)
    assert not out.exists()


def test_a_known_data_set_has_no_more_examples_to_draw_than_it_has(
    tmp_path: Path,
) -> None:
    request = Request("table8/noise-20", root=tmp_path, data=tmp_path)
    one = jobs(request.recipe(), request.root)[0].experiment
    whole = one.model_copy(update={"train_examples": 50_000})
    assert images_of(whole, request).train == 45_000
    more = one.model_copy(update={"train_examples": 50_001})
    with pytest.raises(BadInput, match="50,001 examples are asked for, of 50,000"):
        images_of(more, request)

"""``flatmin preflight``: what it says, and that it writes nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from flatmin.experiments.compare.plan import BASE
from flatmin.experiments.compare.preflight import (
    gate,
    group_size,
    held_out,
    rise,
    running_statistics,
)
from flatmin.experiments.compare.request import digits
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import DataSet, Tensors, images_of
from flatmin.experiments.launch import launched
from flatmin.experiments.models import build
from flatmin.experiments.train import Training
from tests.experiments.helpers import TINY, run_program
from tests.experiments.loop.problems import pictures, small


def _experiment(method: str, **options: object) -> Experiment:
    change = {"method": method, "method_options": options}
    return digits().experiment.model_copy(update=change)


def test_a_gate_beyond_the_run_is_a_warning() -> None:
    (found,) = gate(_experiment("late_sam", steps=1000), [1.0] * 100)
    assert (found.level, found.check) == ("warning", "gate")


def test_a_tail_without_learning_rate_is_a_warning() -> None:
    late = _experiment("late_sam", steps=10, share=0.1)
    (found,) = gate(late, [1.0] * 9 + [0.01])
    assert (found.level, found.check) == ("warning", "schedule")
    assert "0.1%" in found.sentence


@pytest.mark.parametrize(("examples", "level"), [(1, "warning"), (64, "ok")])
def test_few_examples_with_batch_norm(examples: int, level: str) -> None:
    assert group_size(nn.BatchNorm2d(3), examples).level == level


@pytest.mark.parametrize(
    ("momentum", "fields", "levels"),
    [
        (0.1, {}, ["ok"]),
        (0.01, {}, ["warning"]),
        (None, {}, []),
        (0.01, {"freeze_norm": True}, []),
    ],
)
def test_running_statistics_that_do_not_follow_are_a_warning(
    momentum: float | None, fields: dict[str, object], levels: list[str]
) -> None:
    one = small(epochs=15, **fields)
    training = Training(launched(one), one, pictures())
    assert training.steps == 45
    for layer in training.model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum
    found = list(running_statistics(training))
    assert [one.level for one in found] == levels
    if "warning" in levels:
        assert "still 64% those it began with: train for more" in found[0].sentence


def test_statistics_are_counted_once_a_group_and_pretrained_ones_can_be_frozen(
    tmp_path: Path,
) -> None:
    path = tmp_path / "w.safetensors"
    one = small(epochs=8, m=4)
    save_file(build(one.model, 7).state_dict(), path)
    one = one.model_copy(update={"weights": str(path)})
    training = Training(launched(one), one, pictures())
    layers = [m for m in training.model.modules() if isinstance(m, nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = 0.02
    (found,) = running_statistics(training)
    assert training.steps == 24
    # 0.98 to the power of 2 * 24
    assert "still 38% those it began with: use --set freeze_norm" in found.sentence
    for layer in layers:
        layer.running_mean = None
    assert not list(running_statistics(training))


def test_the_command_tells_radii_apart_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = [one for one in TINY if "rhos=" not in one]
    arguments = ("preflight", *tiny, "--set=rhos=[1e-5,0.05]", "--json")
    code, out, err = run_program(arguments, monkeypatch, capsys)
    assert code == 0, err
    levels = [one["level"] for one in json.loads(out) if one["check"] == "rho"]
    assert levels == ["warning", "ok"]
    assert not list(tmp_path.iterdir())


def test_many_examples_share_a_perturbation_is_a_note() -> None:
    found = group_size(nn.Linear(2, 2), 1024)
    assert found.level == "note"
    assert "1,024 examples" in found.sentence


@pytest.mark.parametrize(("per_class", "level"), [(10, "warning"), (100, "ok")])
def test_few_images_to_choose_on_are_a_warning(per_class: int, level: str) -> None:
    y = torch.arange(10).repeat(per_class)
    images = Tensors(torch.zeros(len(y), 1, 8, 8, dtype=torch.uint8), y)
    names = tuple(map(str, range(10)))
    data = DataSet("made", images, images, names, (0.5,), (0.5,), None, "twice")
    what = digits()
    assert held_out(what, what.settings[0], data).level == level


def test_a_radius_that_throws_the_loss_above_guessing_is_a_warning() -> None:
    what = digits()
    data = images_of(what.common(what.settings[0]), Path())
    one = what.search(what.candidates(what.settings[0], BASE)[-1], 900, 0)
    training = Training(launched(one), one, data)
    groups = next(training.batches.train(0))
    before = [p.detach().clone() for p in training.model.parameters()]
    assert rise(training, groups, 1e4, 10).level == "warning"
    after = list(training.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

"""Weights after two epochs against the loop by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy

from flatmin.experiments import prepare
from flatmin.experiments.datasets import Tensors, flip_labels
from flatmin.experiments.evaluate import predictions
from flatmin.experiments.models import build
from flatmin.experiments.runs.record import Run
from tests.experiments.loop.by_hand import by_hand
from tests.experiments.loop.problems import (
    CLASSES,
    batches_of,
    labelled,
    network,
    pictures,
    same,
    small,
    standard,
    trained,
)
from tests.problems import refusal

PLAIN: dict[str, Any] = {"momentum": 0.0, "weight_decay": 0.0, "rho": 0.1}

VARIANTS: dict[str, dict[str, Any]] = {
    "sgd": {"method": "sgd"},
    "sam": {},
    "m-sam": {"m": 2},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "weight decay": {"weight_decay": 0.1},
    "warm-up": {"warmup": 1.0},
    "half an epoch of warm-up": {"warmup": 0.7},
    "clip": {"clip": 0.5, "m": 4},
    "clip that does not": {"clip": 100.0},
    "label smoothing": {"label_smoothing": 0.3},
    "mixup": {"mixup": 1.0, "m": 4},
    "ema": {"ema": 0.7, "momentum": 0.9},
    "channels last": {"channels_last": True, "momentum": 0.9},
    "frozen norm": {"freeze_norm": True},
    "another seed": {"seed": 3},
    "shake-shake": {"model": "shake-shake-8-2x8d", "m": 4},
    "shake-shake, sgd": {"model": "shake-shake-8-2x8d", "method": "sgd"},
    "shake-shake, every second step": {
        "model": "shake-shake-8-2x8d",
        "method": "interval_sam",
        "method_options": {"k": 2},
    },
    "augmented": {"augment": ("flip", "crop"), "m": 4},
}


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_two_epochs_are_those_of_the_formulas(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    experiment = small(**{**PLAIN, "precision": "64-true", **fields})
    found = trained(experiment, tmp_path).weights()
    expected = by_hand(experiment, pictures())
    assert found.keys() == expected.keys()
    for name, w in expected.items():
        assert found[name].dtype == w.dtype
        torch.testing.assert_close(found[name], w, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("last", [True, False])
def test_weights_of_convolutions_have_their_channels_last(last: bool) -> None:
    built = prepare.network(small(channels_last=last), 6, 3)
    kernels = [w for w in built.parameters() if w.dim() == 4 and w.shape[2] > 1]
    assert kernels
    for w in kernels:
        assert w.is_contiguous(memory_format=torch.channels_last) == last


def test_weights_of_five_dimensions_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def volumes(*_: object, **__: object) -> nn.Module:
        return nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv2d(2, 2, 3))

    monkeypatch.setattr(prepare, "build", volumes)
    built = prepare.network(small(channels_last=True), 6, 3)
    deep, flat = (p for p in built.parameters() if p.dim() > 1)
    assert deep.is_contiguous()
    assert flat.is_contiguous(memory_format=torch.channels_last)


def test_sgd_is_torchs_bit_for_bit(tmp_path: Path) -> None:
    experiment = small(method="sgd", nesterov=True)
    net, batches = network(experiment), batches_of(experiment, pictures())
    sgd = torch.optim.SGD(
        net.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    t = 0
    for epoch in range(2):
        for ((x, y),) in batches.train(epoch):
            sgd.zero_grad()
            cross_entropy(net(x), y).backward()
            sgd.param_groups[0]["lr"] = 0.1 * ((1 + math.cos(math.pi * t / 6)) / 2)
            sgd.step()
            t += 1
    assert same(trained(experiment, tmp_path).weights(), net.state_dict())


@pytest.mark.parametrize("accumulate", [2, 3, 100])
@pytest.mark.parametrize("m", [None, 4])
def test_in_parts_it_is_the_same_step(
    accumulate: int, m: int | None, tmp_path: Path
) -> None:
    experiment = small(model="wrn-10-1-no-bn", precision="64-true", m=m)
    parts = experiment.model_copy(update={"accumulate": accumulate})
    whole = trained(experiment, tmp_path / "whole")
    found = trained(parts, tmp_path / "parts")
    for name, w in whole.weights().items():
        torch.testing.assert_close(found.weights()[name], w, rtol=1e-10, atol=1e-12)
    one, other = (store.metrics()[-1] for store in (whole, found))
    for name in ("train_loss", "sharpness", "error_sharpness", "gradient_examples"):
        assert other[name] == pytest.approx(one[name], rel=1e-6)


def test_frozen_statistics_stay_as_they_came(tmp_path: Path) -> None:
    experiment = small(freeze_norm=True)
    before, after = network(experiment), trained(experiment, tmp_path).weights()
    for name, buffer in before.named_buffers():
        assert torch.equal(after[name], buffer)


def test_noisy_labels_are_stored_and_trained(tmp_path: Path) -> None:
    data = pictures()
    noisy = trained(small(noise=0.4, seed=2), tmp_path / "noisy", data)
    y = flip_labels(data.train.y, 0.4, CLASSES, 2)
    assert not torch.equal(y, data.train.y)
    stored = load_file(noisy.folder / "labels.safetensors")
    assert list(stored) == ["y"]
    assert torch.equal(stored["y"], y)
    clean = trained(small(seed=2), tmp_path / "clean", labelled(data, y))
    assert same(noisy.weights(), clean.weights())


def test_predictions_are_those_of_the_running_statistics() -> None:
    """The first channel is the largest; within a batch it is as large as any."""
    x = torch.randn(8, 3) + torch.tensor([9.0, 0.0, 0.0])
    model = torch.nn.BatchNorm1d(3)
    found = predictions(model.train(), [(x[:4], x), (x[4:], x)])
    assert found.tolist() == [0] * 8


def test_bootstrapping_trains_on_what_the_first_network_predicts(
    tmp_path: Path,
) -> None:
    data, experiment = pictures(), small(noise=0.4, bootstrap=True, epochs=3)
    second = trained(experiment, tmp_path / "both", data)
    first = trained(small(noise=0.4, epochs=3), tmp_path / "first", data)
    teacher = build("wrn-10-1", CLASSES)
    teacher.load_state_dict(first.weights())
    assert isinstance(data.train, Tensors)
    with torch.no_grad():
        y = teacher.eval()(standard(data.train.x, data)).argmax(1)
    assert torch.equal(load_file(second.folder / "labels.safetensors")["y"], y)
    again = trained(small(epochs=3), tmp_path / "again", labelled(data, y))
    assert same(second.weights(), again.weights())

    one, other = second.result(), again.result()
    assert one is not None
    assert other is not None
    assert one["gradient_examples"] == 2 * other["gradient_examples"]
    assert one["steps"] == other["steps"]


def test_a_teacher_that_has_diverged_teaches_nobody(tmp_path: Path) -> None:
    experiment = small(lr=1e30, bootstrap=True)
    said = refusal(lambda: trained(experiment, tmp_path))
    assert re.search(r"teacher has diverged.* 26 of 26 .*smaller lr", said), said
    assert Run(tmp_path / "teacher").finished

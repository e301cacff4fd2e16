"""What a run reports, against the same numbers by hand."""

from __future__ import annotations

import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, log_softmax

from flatmin.experiments import evaluate, train
from flatmin.experiments.datasets import Tensors
from flatmin.experiments.launch import launched
from flatmin.experiments.models import build
from flatmin.experiments.runs.record import Run
from flatmin.experiments.state import State
from flatmin.experiments.tasks import CLASSIFY, IGNORED, NO_CLASS, READ, Task
from flatmin.experiments.train import Training
from tests.experiments.loop.problems import (
    CLASSES,
    batches_of,
    network,
    pictures,
    same,
    small,
    standard,
    trained,
)


def test_error_and_loss_are_those_of_the_stored_weights(tmp_path: Path) -> None:
    data = pictures(test=37)
    run = trained(small(ema=0.5, label_smoothing=0.2), tmp_path, data)
    net = build("wrn-10-1", CLASSES)
    net.load_state_dict(run.weights())
    result, last = run.result(), run.metrics()[-1]
    assert result is not None
    for split, names in (
        (data.test, {"test_error": (result, last), "top5_error": (result, last)}),
        (data.train, {"train_error": (result,)}),
    ):
        assert isinstance(split, Tensors)
        with torch.no_grad():
            out = net.eval()(standard(split.x, data))
        ranks = (out > out.gather(1, split.y[:, None])).sum(1)
        for name, records in names.items():
            worst = 5 if name == "top5_error" else 1
            error = 100 * (ranks >= worst).double().mean().item()
            for record in records:
                assert record[name] == pytest.approx(error)
        loss = -log_softmax(out, 1)[torch.arange(len(out)), split.y].mean()
        if split is data.test:
            assert last["test_loss"] == result["test_loss"]
            assert last["test_loss"] == pytest.approx(loss.item(), rel=1e-5)
            assert torch.equal(stored(run, "predictions")["test"], out.argmax(1))
        else:
            assert result["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert result["parameters"] == sum(p.numel() for p in net.parameters())
    assert result["steps"] == 6
    assert "top5_error" in result


def by_bins(out: torch.Tensor, y: torch.Tensor) -> float:
    """The expected calibration error, per cent, by its definition in 15 bins."""
    shares = out.double().softmax(1)
    confidence, best = shares.max(1)
    total = 0.0
    for low in range(15):
        here = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if here.any():
            right = (best[here] == y[here]).double().mean()
            total += int(here.sum()) * abs((right - confidence[here].mean()).item())
    return 100 * total / len(y)


def test_the_calibration_error_is_that_of_its_definition(tmp_path: Path) -> None:
    data = pictures(test=37)
    run = trained(small(), tmp_path, data)
    net = build("wrn-10-1", CLASSES)
    net.load_state_dict(run.weights())
    result, last = run.result(), run.metrics()[-1]
    assert result is not None
    assert isinstance(data.test, Tensors)
    with torch.no_grad():
        out = net.eval()(standard(data.test.x, data))
    assert result["test_ece"] == pytest.approx(by_bins(out, data.test.y), abs=1e-4)
    assert last["test_ece"] == result["test_ece"]
    assert result["test_ece"] > 1


def test_bins_of_confidence_hold_their_upper_end_and_add_up_over_batches() -> None:
    logits = torch.tensor([0.5, 1.0, 2.0, 40.0, 3.0, 0.0])
    out = torch.stack([logits, -logits], 1)
    y = torch.tensor([0, 1, 0, 0, 0, 1])
    whole = CLASSIFY.sums(out, y)
    parts = sum(
        CLASSIFY.sums(a, b) for a, b in zip(out.split(2), y.split(2), strict=True)
    )
    torch.testing.assert_close(whole, parts)
    found = CLASSIFY.tested(whole.tolist()).line("test")
    assert found["test_ece"] == pytest.approx(by_bins(out, y), abs=1e-4)
    fillers = torch.cat([y, torch.full((2,), IGNORED)])
    more = CLASSIFY.sums(torch.cat([out, out[:2]]), fillers)
    torch.testing.assert_close(more, whole)


def test_beside_an_average_the_last_weights_are_tested(tmp_path: Path) -> None:
    """An average changes nothing else: without one, the same weights are the last."""
    average = trained(small(ema=0.9, epochs=3), tmp_path / "average")
    last = trained(small(epochs=3), tmp_path / "last")
    result, other = average.result(), last.result()
    assert result is not None
    assert other is not None
    assert not same(average.weights(), last.weights())
    assert result["last_error"] == other["test_error"]
    for line, alone in zip(average.metrics(), last.metrics(), strict=True):
        assert line["last_error"] == alone["test_error"]
        assert line["last_loss"] == alone["test_loss"]
        assert "last_error" not in alone
    predicted, alone = stored(average, "predictions"), stored(last, "predictions")
    assert torch.equal(predicted["last"], alone["test"])
    assert predicted["last"].dtype == torch.int64
    assert list(alone) == ["test"]


@pytest.mark.parametrize("method", ["sam", "cr_sam"])
def test_sharpness_is_how_loss_and_error_of_a_group_rise(
    method: str, tmp_path: Path
) -> None:
    """Of a network that does not move: the learning rate is as good as zero."""
    still = {"lr": 1e-30, "weight_decay": 0.0}
    experiment = small(m=4, rho=3.0, epochs=1, method=method, **still)
    data = pictures()
    (line,) = trained(experiment, tmp_path, data).metrics()
    net, rises, wrongs, losses = network(experiment), [], [], []
    for x, y in itertools.chain(*batches_of(experiment, data).train(0)):
        net = network(experiment).train()
        out = net(x)
        loss = cross_entropy(out, y)
        g = torch.autograd.grad(loss, list(net.parameters()))
        size = torch.cat([part.flatten() for part in g]).norm()
        with torch.no_grad():
            for p, part in zip(net.parameters(), g, strict=True):
                p.add_(3.0 * part / size)
            there = net(x)
        rises.append((cross_entropy(there, y) - loss).item())
        losses.append(loss.item())
        errors = [(o.argmax(1) != y).double().mean() for o in (out, there)]
        wrongs.append(100 * (errors[1] - errors[0]).item())
    assert any(wrongs)
    assert line["train_loss"] == pytest.approx(sum(losses) / 6, rel=1e-4)
    assert line["sharpness"] == pytest.approx(sum(rises) / 6, rel=1e-3)
    assert line["error_sharpness"] == pytest.approx(sum(wrongs) / 6)


def test_means_are_over_the_steps_since_the_last_line(tmp_path: Path) -> None:
    every = trained(small(epochs=4), tmp_path / "every").metrics()
    second = trained(small(epochs=4, evaluate_every=2), tmp_path / "second").metrics()
    assert [line["epoch"] for line in second] == [2, 4]
    assert [line["step"] for line in second] == [6, 12]
    for name in ("train_loss", "sharpness", "error_sharpness"):
        for k in range(2):
            mean = (every[2 * k][name] + every[2 * k + 1][name]) / 2
            assert second[k][name] == pytest.approx(mean)
    for k in range(2):
        assert second[k]["test_error"] == every[2 * k + 1]["test_error"]


def test_training_that_ends_within_an_epoch_is_tested_at_its_end(
    tmp_path: Path,
) -> None:
    lines = trained(small(steps=2, length=2), tmp_path).metrics()
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 4)]


#: Examples of a step of 8, by method, for the first 6 steps of two groups.
GRADIENTS: list[tuple[str, dict[str, Any], int]] = [
    ("sgd", {}, 6 * 8),
    ("sam", {}, 6 * 16),
    ("sam", {"rho": 0.0}, 6 * 8),
    ("interval_sam", {"method_options": {"k": 4}}, 6 * 8 + 2 * 8),
    ("subset_sam", {"method_options": {"share": 0.5}}, 6 * 12),
    ("momentum_sam", {}, 6 * 8),
    # One forward pass chooses half of the examples for both passes.
    ("k_sam", {"method_options": {"share": 0.5}}, 6 * 8),
]


@pytest.mark.parametrize(("method", "fields", "examples"), GRADIENTS)
def test_gradient_examples_are_those_that_were_differentiated(
    method: str, fields: dict[str, Any], examples: int, tmp_path: Path
) -> None:
    result = trained(small(method=method, m=4, **fields), tmp_path).result()
    assert result is not None
    assert result["gradient_examples"] == examples


def test_seconds_are_those_of_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step takes a second, each test and each measurement a thousand."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def slow(place: Any, name: str, seconds: float) -> None:
        before = getattr(place, name)

        def slower(*arguments: Any) -> Any:
            nonlocal now
            now += seconds
            return before(*arguments)

        monkeypatch.setattr(place, name, slower)

    slow(Training, "step", 1.0)
    slow(evaluate, "tested", 1000.0)
    slow(State, "save", 1000.0)
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0.0)
    run = trained(small(epochs=3, flatness_rho=0.05), tmp_path)
    result = run.result()
    assert result is not None
    assert result["seconds"] == 9
    assert [line["seconds"] for line in run.metrics()] == [3, 6, 9]


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_flatness_is_measured_on_the_labels_that_were_trained(
    precision: str, tmp_path: Path
) -> None:
    data, rho = pictures(), 0.2
    experiment = small(noise=0.5, precision=precision, flatness_rho=rho)
    run = trained(experiment, tmp_path, data)
    net = build("wrn-10-1", CLASSES).double()
    net.load_state_dict(run.weights())
    net.eval()
    assert isinstance(data.train, Tensors)
    x, y = standard(data.train.x, data).double(), stored(run, "labels")["y"]
    w = list(net.parameters())
    loss = cross_entropy(net(x), y)
    g = torch.autograd.grad(loss, w)
    size = torch.cat([part.flatten() for part in g]).norm()
    with torch.no_grad():
        for p, part in zip(w, g, strict=True):
            p.add_(rho * part / size)
        rise = cross_entropy(net(x), y) - loss
    result = run.result()
    assert result is not None
    assert result["sharpness"] == pytest.approx(rise.item(), rel=1e-3)
    assert result["lambda_max"] > 0


def stored(run: Run, name: str) -> dict[str, torch.Tensor]:
    return load_file(run.folder / f"{name}.safetensors")


def test_a_spectrum_is_measured_at_its_epochs_and_changes_nothing(
    tmp_path: Path,
) -> None:
    plain = trained(small(epochs=3), tmp_path / "plain")
    run = trained(
        small(epochs=3, spectrum_at=(1, 3), evaluate_every=3), tmp_path / "run"
    )
    lines = run.metrics()
    assert [line["epoch"] for line in lines] == [1, 3]
    assert all(line["lambda_max"] > 0 and line["lambda_ratio"] >= 1 for line in lines)
    one, other = plain.weights(), run.weights()
    assert all(torch.equal(w, other[name]) for name, w in one.items())


def test_what_has_diverged_is_null_and_the_files_are_json(tmp_path: Path) -> None:
    experiment = small(lr=1e30, flatness_rho=0.05, spectrum_at=(2,))
    with pytest.warns(RuntimeWarning, match="is not known: the loss of batch"):
        run = trained(experiment, tmp_path)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    for file in ("result.json", "metrics.jsonl"):
        for line in (run.folder / file).read_text().split("\n{"):
            json.loads(
                line if line.startswith("{") else "{" + line, parse_constant=refuse
            )
    result, last = run.result(), run.metrics()[-1]
    assert result is not None
    for record, names in (
        (result, ("sharpness", "lambda_max")),
        (last, ("test_loss", "train_loss", "lambda_max", "lambda_ratio")),
    ):
        assert [record[name] for name in names] == [None] * len(names)
    assert result["test_error"] == result["train_error"] == 100.0
    assert result["top5_error"] == last["test_error"] == 100.0
    assert (run.predictions()["test"] == NO_CLASS).all()


def without_class(bad: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs for 6 classes with the labels that are largest, one row in two bad."""
    out = torch.eye(6)[:4] * 9
    y = out.argmax(1)
    # The class that argmax and topk name for a row of NaN is the first.
    out[::2], y[::2] = torch.randn(6), 0
    out[::2, 0] = bad
    return out, y


@pytest.mark.parametrize("task", [CLASSIFY, READ])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_not_finite_are_wrong(task: Task, bad: float) -> None:
    out, y = without_class(bad)
    found = task.tested(task.sums(out, y).tolist()).line("test")
    assert (found["test_error"], found["top5_error"]) == (50.0, 50.0)
    (wrong,) = task.wrong(out, y)
    assert wrong == 2
    assert task.likeliest(out)[0].tolist() == [NO_CLASS, 1, NO_CLASS, 3]


def test_what_is_stored_is_predicted_from_equal_outputs_too() -> None:
    """Of more than five equal outputs, topk need not name the first."""
    out, y = torch.zeros(9, 9), torch.arange(9)
    (predicted,) = CLASSIFY.likeliest(out)
    found = CLASSIFY.tested(CLASSIFY.sums(out, y).tolist()).line("test")
    assert found["test_error"] == 100 * (predicted != y).double().mean().item()
    assert found["top5_error"] <= found["test_error"]


def test_the_loss_that_is_trained_has_label_smoothing() -> None:
    experiment = small(label_smoothing=0.4)
    training = Training(launched(experiment), experiment, pictures())
    out, y = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    log_p = out.log_softmax(1)
    own, mean = log_p[torch.arange(5), y], log_p.mean(1)
    expected = -(0.6 * own + 0.4 * mean)
    torch.testing.assert_close(training.loss(out, y), expected)

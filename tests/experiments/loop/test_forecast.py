"""A forecast through the whole program, on a series that is made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flatmin.experiments import train
from flatmin.experiments.batches import Share
from flatmin.experiments.config import Experiment, validated
from flatmin.experiments.datasets import made_up_images
from flatmin.experiments.errors import BadInput
from flatmin.experiments.launch import launched
from flatmin.experiments.models import build
from flatmin.experiments.runs.record import Run
from flatmin.experiments.tasks import FORECAST
from flatmin.experiments.train import Training
from tests.experiments.helpers import Program
from tests.experiments.loop.problems import (
    batches_of,
    left_and_resumed,
    refused,
    same,
    trained,
    without_time,
)

CELL = "forecast/etth1/96/sam"


def forecast(**fields: Any) -> Experiment:
    """Two epochs of three steps; a short past and a short future."""
    values = {
        "data": "etth1",
        "horizon": 6,
        "lookback": 20,
        "augment": (),
        "model": "samformer",
        "optimizer": "adam",
        "lr": 1e-2,
        "weight_decay": 0.0,
        "rho": 0.5,
        "batch_size": 8,
        "epochs": 2,
        "device": "cpu",
        "flatness_rho": None,
    }
    return Experiment.model_validate({**values, **fields})


def run(folder: Path, **fields: Any) -> Run:
    one = forecast(**fields)
    return trained(one, folder, made_up_images(one))


def numbers(run: Run) -> dict[str, Any]:
    result = run.result()
    assert result is not None
    return result


def standardised(one: Experiment) -> tuple[torch.Tensor, int]:
    """The made-up series, and where its test begins."""
    data: Any = made_up_images(one)
    mean, std = (
        torch.tensor(x, dtype=torch.float64)[:, None] for x in (data.mean, data.std)
    )
    return ((data.train.values - mean) / std).float(), int(data.test.y[0])


def test_the_errors_are_those_of_every_window_by_hand(tmp_path: Path) -> None:
    found = run(tmp_path / "run")
    model = build("samformer", 6, 7, lookback=20)
    model.load_state_dict(found.weights())
    series, first = standardised(forecast())
    squares, sizes = [], []
    with torch.no_grad():
        for t in range(first, series.shape[1] - 6 + 1):
            off = model(series[None, :, t - 20 : t])[0] - series[:, t : t + 6]
            squares.append(off.square().mean().item())
            sizes.append(off.abs().mean().item())
    result = numbers(found)
    assert result["test_mse"] == pytest.approx(sum(squares) / len(squares), rel=1e-5)
    assert result["test_mae"] == pytest.approx(sum(sizes) / len(sizes), rel=1e-5)
    assert "test_error" not in result
    assert "error_sharpness" not in found.metrics()[-1]


def test_training_is_adam_on_the_squared_error_by_hand(tmp_path: Path) -> None:
    one = forecast(method="sgd", rho=0.0)
    found = run(tmp_path / "run", method="sgd", rho=0.0)
    torch.manual_seed(one.seed)
    model = build("samformer", 6, 7, lookback=20)
    adam = torch.optim.Adam(model.parameters(), lr=one.lr)
    training = Training(launched(one), one, made_up_images(one))
    series, _ = standardised(one)
    steps = 6
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for epoch in range(2):
        for ((x, y),) in training.batches.train(epoch):
            assert any(torch.equal(x[0], series[:, t - 20 : t]) for t in range(20, 44))
            adam.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            adam.step()
            cosine.step()
    for name, w in found.weights().items():
        # The softmax does not see it: its gradient is rounding, which Adam scales up.
        if name != "keys.bias":
            torch.testing.assert_close(w, model.state_dict()[name])


def test_sam_takes_the_gradient_at_the_perturbed_weights(tmp_path: Path) -> None:
    found = run(tmp_path / "run", epochs=1, optimizer="sgd", momentum=0.0)
    one = forecast(epochs=1, optimizer="sgd", momentum=0.0)
    torch.manual_seed(one.seed)
    model = build("samformer", 6, 7, lookback=20)
    weights = list(model.parameters())
    training = Training(launched(one), one, made_up_images(one))
    for step, ((x, y),) in enumerate(training.batches.train(0)):
        up = torch.autograd.grad(nn.functional.mse_loss(model(x), y), weights)
        norm = torch.stack([g.norm() for g in up]).norm()
        before = [w.detach().clone() for w in weights]
        with torch.no_grad():
            for w, g in zip(weights, up, strict=True):
                w.add_(0.5 * g / norm)
        down = torch.autograd.grad(nn.functional.mse_loss(model(x), y), weights)
        lr = 1e-2 * (1 + torch.cos(torch.tensor(torch.pi * step / 3))) / 2
        with torch.no_grad():
            for w, old, g in zip(weights, before, down, strict=True):
                w.copy_(old - lr * g)
    for name, w in found.weights().items():
        torch.testing.assert_close(w, model.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_the_program_trains_two_epochs_and_prints_the_error(
    tmp_path: Path, program: Program
) -> None:
    words = ("--smoke", "--set", "epochs=2", "--out", tmp_path)
    code, out, err = program("train", CELL, *words)
    assert (code, err) == (0, "")
    found = Run(tmp_path / CELL / "x1" / "seed-0")
    mse = numbers(found)["test_mse"]
    assert f"{CELL}/x1/seed-0: test MSE {mse:.4f}, " in out
    assert [line["epoch"] for line in found.metrics()] == [1, 2]
    assert not (found.folder / "predictions.safetensors").exists()


@pytest.mark.parametrize(
    "fields", [{}, {"ema": 0.8}, {"method": "looksam", "method_options": {"k": 3}}]
)
def test_what_was_interrupted_ends_where_it_would_have(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(train, "_ASK_EVERY", 1)
    straight = run(tmp_path / "straight", **fields)

    one = forecast(**fields)
    data = made_up_images(one)
    resumed = left_and_resumed(one, tmp_path / "resumed", data, 5)
    assert same(straight.weights(), resumed.weights())
    assert without_time(numbers(straight)) == without_time(numbers(resumed))


def test_windows_that_fill_a_process_up_are_not_tested() -> None:
    one = forecast(train_examples=17)
    data = made_up_images(one)
    model = build("samformer", 6, 7, lookback=20)

    def sums(share: Share) -> torch.Tensor:
        read = batches_of(one, data, share=share).plain()
        return torch.stack([FORECAST.sums(model(x), y) for x, y in read]).sum(0)

    whole, halves = sums(Share()), sums(Share(0, 2)) + sums(Share(1, 2))
    assert whole[-1] == 17
    torch.testing.assert_close(halves, whole)


def test_a_training_that_diverges_has_the_worst_error(tmp_path: Path) -> None:
    found = run(tmp_path / "run", optimizer="sgd", lr=1e20, rho=0.0)
    assert numbers(found)["test_mse"] == numbers(found)["test_mae"] == 1e9


def test_parts_of_a_group_change_nothing(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", optimizer="sgd").weights()
    parts = run(tmp_path / "parts", optimizer="sgd", accumulate=3).weights()
    for name, w in whole.items():
        torch.testing.assert_close(w, parts[name], rtol=1e-4, atol=1e-6)


def test_a_forecast_in_double_precision(tmp_path: Path) -> None:
    found = run(tmp_path / "run", precision="64-true", flatness_rho=0.05)
    assert all(w.dtype == torch.float64 for w in found.weights().values())
    result = numbers(found)
    assert result["sharpness"] > 0
    assert result["lambda_max"] > 0


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"noise": 0.4}, "noise=0"),
        ({"noisy_validation": True}, "noisy_validation=false"),
        ({"true_class": True}, "true_class=false"),
        ({"label_smoothing": 0.1}, "label_smoothing=0"),
        ({"augment": ("flip",)}, r"augment=\[\]"),
        ({"mixup": 1.0}, "mixup=null"),
        ({"bootstrap": True}, "bootstrap=false"),
        ({"image_size": 32}, "image_size=null"),
        ({"freeze_norm": True}, "freeze_norm=false"),
        ({"channels_last": True}, "channels_last=false"),
    ],
)
def test_what_only_images_have_is_refused(fields: dict[str, Any], line: str) -> None:
    values = {**forecast().model_dump(), **fields}
    with pytest.raises(BadInput, match=f"horizon 6 asks for a forecast, .*{line}"):
        validated(Experiment, values)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model=wrn-10-1"], "model wrn-10-1 makes none. Use --set model=samformer"),
        (["data=digits"], "digits has images. Use --set data=etth1, or horizon=null"),
        (["horizon=null"], "etth1 is a series. Use --set horizon=96"),
        (["batch_size=4096"], "more than the 16 training windows"),
        (['model_options={"lookback":9}'], "model samformer: .*lookback"),
        (["horizon=0"], "horizon: Input should be greater than or equal to 1"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_no_folder(
    settings: list[str], words: str, tmp_path: Path, program: Program
) -> None:
    err = refused(program, CELL, settings, tmp_path)
    assert words.partition(".*")[0] in err
    assert words.rpartition(".*")[2] in err


def test_a_forecaster_of_images_is_refused(tmp_path: Path, program: Program) -> None:
    what = ("train", "table1/cifar10/wrn-28-10-200/basic/sam", "--smoke")
    code, _, err = program(*what, "--set", "model=samformer", "--out", tmp_path)
    assert code == 2
    assert "model samformer forecasts a series. Use --set horizon=96" in err


def test_a_comparison_has_no_horizon(tmp_path: Path, program: Program) -> None:
    code, _, err = program("compare", "--set", "horizon=96", "--out", tmp_path)
    assert code == 2
    assert "unknown field 'horizon'" in err


def test_a_sweep_chooses_rho_by_the_validation_error(
    tmp_path: Path, program: Program
) -> None:
    words = ("--smoke", "--set", "rho=[0.2,0.7]", "--out", tmp_path)
    code, out, err = program("sweep", CELL, *words)
    assert (code, err) == (0, "")
    assert "validation MSE" in out
    assert "validated on the part after the training steps" in " ".join(out.split())
    home = tmp_path / "sweep" / CELL
    best = json.loads((home / "best.json").read_text())
    errors = {
        rho: numbers(Run(home / f"rho-{rho}" / "seed-0"))["test_mse"]
        for rho in (0.2, 0.7)
    }
    assert best["point"] == {"rho": min(errors, key=lambda rho: errors[rho])}
    assert best["validation_error"] == min(errors.values())
    assert f"--set rho={best['point']['rho']}" in best["train"]


def test_the_sweep_tries_the_grid_of_the_recipe(program: Program) -> None:
    from flatmin.experiments.jobs import Request
    from flatmin.experiments.sweep._grid import grid

    del program
    assert grid(Request(CELL, small=True)).axes == {"rho": (0.2, 0.5, 0.7, 1.0)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one short forecast."""
    root = tmp_path_factory.mktemp("runs")
    one, folder = forecast(), root / "run"
    Run(folder).claim(one, made_up_images(one))
    return trained(one, folder, made_up_images(one)).folder


def test_the_report_has_the_error_beside_the_papers(
    tmp_path: Path, program: Program
) -> None:
    code, _, err = program("train", CELL, "--smoke", "--out", tmp_path)
    assert (code, err) == (0, "")
    code, out, err = program("report", tmp_path)
    assert (code, err) == (0, "")
    mse = numbers(Run(tmp_path / CELL / "x1" / "seed-0"))["test_mse"]
    assert f"{mse:.4f}" in out
    table = (tmp_path / "tables" / "forecast.md").read_text()
    (row,) = [line for line in table.splitlines() if "| 192 | SAM |" in line]
    assert "0.409" in row
    assert "30 epochs instead of up to 300 with early stopping" in table
    page = (tmp_path / "report.html").read_text()
    assert "test MSE" in page


def test_sharpness_and_landscape_are_those_of_the_squared_error(
    finished: Path, tmp_path: Path, program: Program
) -> None:
    code, out, err = program("sharpness", finished, "--json", "--m", 8)
    assert code == 0, err
    (found,) = json.loads(out)
    assert found["sharpness"] > 0
    assert found["lambda_max"] > 0
    assert found["method"] == "SAM, rho 0.5"
    out_folder = tmp_path / "landscape"
    code, _, err = program("landscape", finished, "--points", 3, "--out", out_folder)
    assert (code, err) == (0, "")
    (name, plane), *_ = json.loads((out_folder / "landscape.json").read_text()).items()
    assert name == "SAM, rho 0.5, ETTh1, 6 steps ahead"
    train_mse = numbers(Run(finished))["train_mse"]
    assert plane["losses"][1][1] == pytest.approx(train_mse, rel=1e-5)


def test_a_forecaster_is_not_exported(
    finished: Path, tmp_path: Path, program: Program
) -> None:
    code, _, err = program("export", finished, "--out", tmp_path / "model")
    assert code == 2
    assert "forecasts a series" in err
    assert not (tmp_path / "model").exists()


def test_a_dry_run_counts_windows_and_reads_nothing(
    tmp_path: Path, program: Program
) -> None:
    words = ("--dry-run", "--data", tmp_path / "none", "--out", tmp_path / "runs")
    code, out, err = program("train", CELL, *words)
    assert (code, err) == (0, "")
    # 8,033 windows are 31 batches of 256; two gradients in each step of SAM.
    flat = " ".join(out.split())
    assert f"{30 * 31:,} {2 * 30 * 31 * 256:,}" in flat
    assert not list(tmp_path.iterdir())


def test_windows_that_are_missing_are_noticed(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    assert torch.equal(Run(copy).labels(), Run(finished).labels())
    (copy / "labels.safetensors").unlink()
    with pytest.raises(BadInput, match=r"labels\.safetensors cannot be read"):
        Run(copy).labels()

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin.experiments import train as training
from flatmin.experiments.config import ARMS, Arm
from flatmin.experiments.data import Data, load
from flatmin.experiments.errors import BadInput
from flatmin.experiments.store import RunStore
from flatmin.experiments.train import Run, error, train
from tests.experiments.helpers import tiny

ARM = {arm.name: arm for arm in ARMS}


@pytest.fixture(scope="module")
def data() -> Data:
    return load(tiny())


def ignore(metrics: dict[str, Any]) -> None:
    del metrics


def stop_after(epoch: int) -> Callable[[dict[str, Any]], None]:
    def watch(metrics: dict[str, Any]) -> None:
        if metrics["epoch"] == epoch:
            raise KeyboardInterrupt

    return watch


def without_time(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "seconds"}


@pytest.mark.parametrize("arm", ["sgd", "sam"])
@pytest.mark.parametrize("checkpoint_every", [0.0, 1e9])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    arm: str,
    checkpoint_every: float,
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", checkpoint_every)
    run = Run(tiny(epochs=5), ARM[arm], 0.4, 0)
    whole = train(run, data, tmp_path / "whole", ignore)

    for epoch in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            train(run, data, tmp_path / "parts", stop_after(epoch))
    parts = train(run, data, tmp_path / "parts", ignore)

    assert without_time(parts) == without_time(whole)
    one, two = (RunStore(run.folder(tmp_path / name)) for name in ("whole", "parts"))
    assert list(map(without_time, two.metrics())) == list(
        map(without_time, one.metrics())
    )
    weights = two.weights()
    assert all(torch.equal(w, weights[name]) for name, w in one.weights().items())
    assert not (two.folder / "checkpoint.pt").exists()


def test_a_finished_run_is_not_run_again(data: Data, tmp_path: Path) -> None:
    run = Run(tiny(), ARM["sgd"], 0.4, 0)
    result = train(run, data, tmp_path, ignore)
    assert train(run, data, tmp_path, stop_after(1)) == result


def test_every_arm_starts_from_the_same_weights_and_noise(data: Data) -> None:
    runs = [Run(tiny(), arm, 0.4, 1) for arm in ARMS]
    models = [run.model(data).state_dict() for run in runs]
    for run, weights in zip(runs[1:], models[1:], strict=True):
        assert torch.equal(run.labels(data), runs[0].labels(data))
        assert all(torch.equal(w, models[0][name]) for name, w in weights.items())


def test_seeds_differ_in_weights_and_noise(data: Data) -> None:
    one, two = (Run(tiny(), ARM["sgd"], 0.4, seed) for seed in (0, 1))
    assert not torch.equal(one.labels(data), two.labels(data))
    w_one, w_two = (next(run.model(data).parameters()) for run in (one, two))
    assert not torch.equal(w_one, w_two)


def test_sam_of_radius_zero_is_sgd_of_the_same_length(
    data: Data, tmp_path: Path
) -> None:
    config = tiny(rho=0.0)
    sgd = train(Run(config, ARM["sgd"], 0.4, 0), data, tmp_path, ignore)
    sam = train(Run(config, ARM["sam"], 0.4, 0), data, tmp_path, ignore)
    for name in ("test_error", "train_error", "sharpness", "lambda_max"):
        assert sam[name] == sgd[name]


def test_the_sgd_arm_is_plain_sgd_with_a_cosine_schedule(
    data: Data, tmp_path: Path
) -> None:
    run = Run(tiny(), ARM["sgd"], 0.4, 0)
    train(run, data, tmp_path, ignore)
    model, y = run.model(data), run.labels(data)
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    steps, t = 2 * 14, 0
    for epoch in range(2):
        order = torch.randperm(900, generator=torch.Generator().manual_seed(epoch))
        for batch in order.tensor_split(14):
            cosine = torch.cos(torch.tensor(t / steps * torch.pi, dtype=torch.float64))
            sgd.param_groups[0]["lr"] = 0.1 * (1 + cosine.item()) / 2
            sgd.zero_grad()
            cross_entropy(model(data.x[batch]), y[batch]).backward()
            sgd.step()
            t += 1
    trained = RunStore(run.folder(tmp_path)).weights()
    for name, w in model.state_dict().items():
        torch.testing.assert_close(trained[name], w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("arm", "passes"), [("sgd", 1), ("sgd-2x", 1), ("sam", 2)])
def test_gradient_examples_count_every_gradient(
    arm: str,
    passes: int,
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backward, counted = Tensor.backward, 0

    def count(loss: Tensor) -> None:
        nonlocal counted
        counted += 1
        backward(loss)

    monkeypatch.setattr(Tensor, "backward", count)
    run = Run(tiny(epochs=1), ARM[arm], 0.4, 0)
    result = train(run, data, tmp_path, ignore)
    assert counted == passes * run.epochs * run.batches(900)
    assert result["gradient_examples"] == passes * run.epochs * 900


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_named(
    damage: bytes, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 0.0)
    run = Run(tiny(), ARM["sgd"], 0.4, 0)
    with pytest.raises(KeyboardInterrupt):
        train(run, data, tmp_path, stop_after(2))
    path = run.folder(tmp_path) / "checkpoint.pt"
    path.write_bytes(damage)
    with pytest.raises(BadInput, match=r"checkpoint\.pt is damaged"):
        train(run, data, tmp_path, ignore)
    assert path.read_bytes() == damage


def test_error_is_the_share_of_wrong_predictions() -> None:
    x, y = torch.eye(4).repeat(600, 1), torch.arange(4).repeat(600)
    y[:3] = (y[:3] + 1) % 4
    assert error(nn.Identity(), x, y) == pytest.approx(100 * 3 / 2400)


def test_the_cost_of_an_arm_is_its_share_of_the_progress() -> None:
    arm = Arm(name="x", label="x", sharpness_aware=True, length=2, cost=2)
    assert Run(tiny(epochs=3), arm, 0.0, 0).cost == 12

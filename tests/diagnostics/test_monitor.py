"""A training loop that is watched trains as one that is not."""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

import flatmin
from flatmin.core import LpBall, PerGroup, PerLayer, TwoPoint
from flatmin.diagnostics import Monitor, Objective, eigenvalues, sharpness
from flatmin.diagnostics._still import evaluating
from flatmin.optim._statistics import Statistics
from tests.diagnostics.problems import batches, classifier, no_trace
from tests.problems import Noisy, assert_same, batch, sam_steps, snapshot, untouched


def watched_run(monitor_of: Any, steps: int = 6) -> tuple[nn.Module, Any]:
    """SAM on a network with dropout and BatchNorm, in training mode."""
    torch.manual_seed(2)
    model = Noisy().double()
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer = flatmin.SAM(base, model, rho=0.1, track=True)
    with evaluating(model):
        objective = Objective(model, F.cross_entropy, batches())
    monitor = monitor_of(objective)
    for step in range(steps):
        sam_steps(optimizer, model, batch(torch.float64), 1)
        if monitor is not None:
            monitor(step, optimizer)
    return model, monitor


def test_a_watched_run_is_the_unwatched_one_bit_for_bit() -> None:
    plain, _ = watched_run(lambda _: None)
    state = torch.get_rng_state()
    watched, monitor = watched_run(lambda objective: Monitor(objective, every=2))
    assert_same(snapshot(plain), snapshot(watched))
    assert torch.equal(state, torch.get_rng_state())
    assert watched.training
    assert [record["step"] for record in monitor.records] == [0, 2, 4]


def test_a_record_has_the_numbers_of_the_measures() -> None:
    model, objective = classifier()
    monitor = Monitor(objective, rho=0.3)
    with no_trace(model), untouched(model):
        record = monitor(0)
    assert record is not None
    loss, g = objective.gradient()
    norm = math.sqrt(sum(float(x.square().sum()) for x in g))
    assert record["loss"] == pytest.approx(float(loss), rel=1e-12)
    assert record["sharpness"] == sharpness(objective, 0.3).value
    assert record["loss_eps"] == pytest.approx(record["loss"] + record["sharpness"])
    assert record["gradient_norm"] == pytest.approx(norm, rel=1e-12)
    assert record["lambda_max"] == eigenvalues(objective, 1, tol=0.03).value
    with objective.at([0.3 * x / norm for x in g]):
        _, there = objective.gradient()
    a, b = (torch.cat([x.flatten() for x in xs]) for xs in (g, there))
    assert record["cosine"] == pytest.approx(float(a @ b / (a.norm() * b.norm())))
    assert record["seconds"] > 0
    assert "problem" not in record


def test_what_sam_measured_is_recorded_too() -> None:
    _, monitor = watched_run(lambda o: Monitor(o, every=5, lambda_max=False))
    record = monitor.records[0]
    for name in ("loss", "sharpness", "gradient_norm", "cosine"):
        assert math.isfinite(record[f"batch_{name}"])
    assert record["loss"] is not None
    assert "lambda_max" not in record
    _, objective = classifier()
    assert "batch_loss" not in (Monitor(objective)(0) or {})


METRICS: list[Any] = [PerLayer(LpBall()), PerGroup(LpBall()), LpBall()]


@pytest.mark.parametrize("metric", METRICS, ids=["layers", "groups", "one"])
def test_norms_of_several_balls_are_recorded_as_that_of_the_gradient(
    metric: Any, tmp_path: Path
) -> None:
    path = tmp_path / "flatness.jsonl"
    model, objective = classifier()
    x, y = batch(torch.float64)
    g = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    layers = [{"params": layer.parameters()} for layer in model.children()]
    optimizer = flatmin.SAM(
        torch.optim.SGD(layers, lr=0.1), model, method=TwoPoint(metric=metric)
    )
    sam_steps(optimizer, model, (x, y), 1)
    norm = optimizer.statistics.grad_norm
    assert norm is not None
    assert (norm.numel() > 1) == (metric is not METRICS[-1])
    record = Monitor(objective, lambda_max=False, jsonl=path)(0, optimizer) or {}
    expected = math.sqrt(sum(float(part.square().sum()) for part in g))
    assert record["batch_gradient_norm"] == pytest.approx(expected, rel=1e-12)
    assert json.loads(path.read_text()) == record
    assert "problem" not in record


@dataclass
class Measured:
    """An optimizer with these statistics."""

    statistics: Any


def test_losses_of_examples_are_recorded_as_their_mean() -> None:
    _, objective = classifier()
    losses = torch.tensor([0.0, 3.0, 0.0])
    found = Statistics(loss=losses, perturbed_loss=losses + 2, same_loss=losses)
    record = Monitor(objective, lambda_max=False)(0, Measured(found)) or {}
    assert (record["batch_loss"], record["batch_sharpness"]) == (1, 2)
    assert "batch_cosine" not in record


def test_a_loss_of_zero_is_recorded() -> None:
    _, objective = classifier()
    found = Statistics(loss=torch.tensor(0.0))
    record = Monitor(objective, lambda_max=False)(0, Measured(found)) or {}
    assert record.get("batch_loss", "absent") == 0


@pytest.mark.parametrize(
    "found",
    [
        Statistics(perturbed_loss=torch.ones(2), same_loss=torch.ones(3)),
        SimpleNamespace(loss=object()),
        SimpleNamespace(loss="low"),
    ],
)
def test_training_goes_on_where_a_statistic_is_no_number(found: Any) -> None:
    _, objective = classifier()
    record = Monitor(objective, lambda_max=False)(0, Measured(found)) or {}
    assert record["batch_loss"] is None
    assert record["problem"]
    assert record["sharpness"] > 0


def test_the_cost_is_that_of_its_passes() -> None:
    model, objective = classifier(size=24)
    gradients = passes = 0

    def count(*_: object) -> None:
        nonlocal gradients, passes
        passes += 1
        gradients += torch.is_grad_enabled()

    model.register_forward_pre_hook(count)
    monitor = Monitor(objective, lambda_max=False)
    monitor(0)
    assert passes == gradients == monitor.cost == 2
    assert Monitor(objective).cost == 2 + 7 * 4.5


def test_records_are_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "new" / "flatness.jsonl"
    _, monitor = watched_run(lambda o: Monitor(o, every=3, jsonl=path))
    monitor.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == (
        monitor.records
    )


def test_records_go_to_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    _, objective = classifier()
    monitor = Monitor(objective, tensorboard=tmp_path)
    record = monitor(0) or {}
    monitor.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Scalars("flatmin/sharpness")
    assert event.value == pytest.approx(record["sharpness"], rel=1e-6)
    assert event.step == 0


def test_a_process_that_is_not_the_first_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    one_process: dist.ProcessGroup,
) -> None:
    _, objective = classifier(group=one_process)
    monkeypatch.setattr(dist, "get_rank", lambda group: 1)
    monitor = Monitor(objective, jsonl=tmp_path / "log", tensorboard=tmp_path / "board")
    assert monitor(0) is not None
    monitor.close()
    assert not list(tmp_path.iterdir())


def test_a_missing_tensorboard_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, objective = classifier()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        Monitor(objective, tensorboard=tmp_path)


def test_training_goes_on_where_nothing_can_be_measured(tmp_path: Path) -> None:
    model, objective = classifier()
    path = tmp_path / "flatness.jsonl"
    monitor = Monitor(objective, jsonl=path, tensorboard=tmp_path)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    record = monitor(0) or {}
    monitor.close()
    assert record["sharpness"] is None
    assert record["lambda_max"] is None
    assert "gradient is infinite or NaN" in record["problem"]
    assert json.loads(path.read_text())["sharpness"] is None


def test_a_number_that_json_lacks_is_null(tmp_path: Path) -> None:
    model, _ = classifier()
    path = tmp_path / "flatness.jsonl"
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    objective = Objective(model, lambda out, _: (out**2).mean(), batches())
    Monitor(objective, jsonl=path, lambda_max=False)(0)
    # The gradient is zero here, and has no angle to anything.
    assert json.loads(path.read_text())["cosine"] is None


def test_modes_come_back_when_a_measurement_is_interrupted() -> None:
    model, objective = classifier(model=Noisy().double().eval())
    monitor = Monitor(objective)
    model.train()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    model.register_forward_pre_hook(stop)
    with untouched(model), pytest.raises(KeyboardInterrupt):
        monitor(0)
    assert all(module.training for module in model.modules())


def test_impossible_arguments_are_refused() -> None:
    _, objective = classifier()
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        Monitor(objective, every=0)
    with pytest.raises(ValueError, match="rho must be finite"):
        Monitor(objective, rho=-1)

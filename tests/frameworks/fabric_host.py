"""Rows of Fabric: the model set up before SAM is built, or together with SAM."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor

from tests.frameworks.judge import REFUSED, Host
from tests.frameworks.scenario import (
    EPOCHS,
    Scenario,
    Trace,
    batches,
    loss_of,
    network,
    optimizer_of,
    scaler_of,
    schedule_of,
    start,
    trace,
)


@dataclass
class SetUp:
    """What a loop needs; ``schedule`` may be None."""

    fabric: Fabric
    model: Any
    optimizer: Any
    schedule: Any


def fabric_of(of: Scenario) -> Fabric:
    plugins: list[Any] = []
    if of.precision != "32":
        # By name, "16-mixed" would be bfloat16 on the CPU, without a scaler.
        scaler = scaler_of(of) if of.precision == "16" else None
        plugins.append(MixedPrecision(f"{of.precision}-mixed", "cpu", scaler))  # pyright: ignore[reportArgumentType]
    if of.processes > 1:
        plugins.append(TorchElasticEnvironment())
    fabric = Fabric(
        accelerator="cpu",
        devices=of.processes,
        strategy="ddp" if of.processes > 1 else "auto",
        plugins=plugins,
    )
    fabric.launch()
    return fabric


def set_up(of: Scenario, calls: Counter[str], *, model_first: bool) -> SetUp:
    fabric, model = fabric_of(of), network(of)
    optimizer: Any
    if model_first:
        model = fabric.setup_module(model)
        optimizer = fabric.setup_optimizers(optimizer_of(of, model))
    else:
        model, optimizer = fabric.setup(model, optimizer_of(of, model))
    optimizer.register_step_post_hook(lambda *_: calls.update(["step"]))
    schedule = schedule_of(optimizer) if of.schedule else None
    return SetUp(fabric, model, optimizer, schedule)


def train(of: Scenario, rank: int, *, model_first: bool) -> Trace:
    losses, calls = list[float](), Counter[str]()
    run = set_up(of, calls, model_first=model_first)
    start()
    for k, (x, y) in enumerate(EPOCHS * batches(rank)):
        if k == of.stop:
            run = resumed(run, set_up(of, calls, model_first=model_first))
        losses.append(passes(of, run, x, y))
        if (k + 1) % of.accumulate == 0:
            step(of, run)
    return trace(run.model, losses, **calls)


def passes(of: Scenario, run: SetUp, x: Tensor, y: Tensor) -> float:
    """The passes over a micro-batch; the loss at w."""
    if of.method is None:
        return one_pass(of, run, x, y)
    scaler = getattr(run.fabric.strategy.precision, "scaler", None)
    loop = run.optimizer.probes(accumulate=of.accumulate > 1, scaler=scaler)
    at_w, *_ = [one_pass(of, run, *probe.take(x, y)) for probe in loop]
    return at_w


def one_pass(of: Scenario, run: SetUp, x: Tensor, y: Tensor) -> float:
    loss = loss_of(run.model(x), y)
    run.fabric.backward(loss / of.accumulate)
    return loss.item()


def step(of: Scenario, run: SetUp) -> None:
    if of.clip_norm is not None:
        run.fabric.clip_gradients(run.model, run.optimizer, max_norm=of.clip_norm)
    if of.clip_value is not None:
        run.fabric.clip_gradients(run.model, run.optimizer, clip_val=of.clip_value)
    run.optimizer.step()
    run.optimizer.zero_grad()
    if run.schedule is not None:
        run.schedule.step()


def resumed(killed: SetUp, fresh: SetUp) -> SetUp:
    """Everything anew, from a checkpoint of Fabric."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint")
        killed.fabric.save(path, content(killed))
        fresh.fabric.load(path, content(fresh))
    return fresh


def content(run: SetUp) -> dict[str, Any]:
    return {"model": run.model, "optimizer": run.optimizer, "schedule": run.schedule}


PACKAGES = ("torch", "lightning-fabric")
HOSTS = [
    Host("Fabric, setup_module first", PACKAGES, partial(train, model_first=True)),
    Host(
        "Fabric, setup(model, optimizer)",
        PACKAGES,
        partial(train, model_first=False),
        # SAM has not seen how the model is wrapped: write optimizer.attach(model).
        expected={(None, "DDP"): REFUSED, (None, "DDP, accumulate 2"): REFUSED},
    ),
]

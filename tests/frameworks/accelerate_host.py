"""Rows of Accelerate: SAM built on the network as it is, or as it was prepared."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from flatmin.integrations.accelerate import probes
from tests.frameworks.judge import Host
from tests.frameworks.scenario import (
    EPOCHS,
    SIZE,
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

PRECISIONS = {"32": "no", "bf16": "bf16", "16": "fp16"}


def accelerator_of(of: Scenario) -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)
    plugin = GradientAccumulationPlugin(num_steps=of.accumulate)
    accelerator = Accelerator(
        cpu=True,
        mixed_precision=PRECISIONS[of.precision],
        gradient_accumulation_plugin=plugin,
    )
    emulate(accelerator, of)
    return accelerator


def emulate(accelerator: Accelerator, of: Scenario) -> None:
    """On the CPU Accelerate has no float16: give it the scaler that it has on GPUs."""
    if of.precision == "16":
        accelerator.native_amp, accelerator.scaler = True, scaler_of(of)


def loader_of(of: Scenario) -> DataLoader[Any]:
    """The batches of all ranks in turn, which Accelerate deals out again."""
    ranks = [batches(rank) for rank in range(of.processes)]
    turns = [batch for turn in zip(*ranks, strict=True) for batch in turn]
    examples = map(torch.cat, zip(*turns, strict=True))
    # A generator of its own leaves the stream of dropout alone.
    return DataLoader(TensorDataset(*examples), SIZE, generator=torch.Generator())


@dataclass
class Prepared:
    """What a loop needs; ``schedule`` may be None."""

    accelerator: Accelerator
    model: Any
    optimizer: Any
    schedule: Any


def prepare(of: Scenario, calls: Counter[str], *, model_first: bool) -> Prepared:
    accelerator, model = accelerator_of(of), network(of)
    if model_first:
        model = accelerator.prepare(model)
    optimizer = optimizer_of(of, model)
    optimizer.register_step_post_hook(lambda *_: calls.update(["step"]))
    schedule = schedule_of(optimizer) if of.schedule else None
    if not model_first:
        model = accelerator.prepare(model)
    return Prepared(accelerator, model, *accelerator.prepare(optimizer, schedule))


def train(of: Scenario, rank: int, *, model_first: bool) -> Trace:
    del rank
    losses, calls = list[float](), Counter[str]()
    run = prepare(of, calls, model_first=model_first)
    loader = run.accelerator.prepare(loader_of(of))
    start()
    for x, y in chain.from_iterable(repeat(loader, EPOCHS)):
        if len(losses) == of.stop:
            run = resumed(run, prepare(of, calls, model_first=model_first))
        with run.accelerator.accumulate(run.model):
            losses.append(passes(of, run, x, y))
            clip(of, run)
            run.optimizer.step()
            if run.schedule is not None:
                run.schedule.step()
            run.optimizer.zero_grad()
    return trace(run.model, losses, **calls)


def resumed(killed: Prepared, fresh: Prepared) -> Prepared:
    """Everything anew, from what the accelerator saves."""
    with tempfile.TemporaryDirectory() as folder:
        killed.accelerator.save_state(folder)
        fresh.accelerator.load_state(folder)
    return fresh


def passes(of: Scenario, run: Prepared, x: Tensor, y: Tensor) -> float:
    """The passes over a micro-batch; the loss at w."""
    if of.method is None:
        return one_pass(run, x, y)
    loop = probes(run.accelerator, run.model, run.optimizer)
    at_w, *_ = [one_pass(run, *probe.take(x, y)) for probe in loop]
    return at_w


def one_pass(run: Prepared, x: Tensor, y: Tensor) -> float:
    loss = loss_of(run.model(x), y)
    run.accelerator.backward(loss)
    return loss.item()


def clip(of: Scenario, run: Prepared) -> None:
    if not run.accelerator.sync_gradients:
        return
    if of.clip_norm is not None:
        run.accelerator.clip_grad_norm_(run.model.parameters(), of.clip_norm)
    if of.clip_value is not None:
        run.accelerator.clip_grad_value_(run.model.parameters(), of.clip_value)


def row(name: str, model_first: bool) -> Host:
    return Host(name, ("torch", "accelerate"), partial(train, model_first=model_first))


HOSTS = [
    row("Accelerate, SAM built first", model_first=False),
    row("Accelerate, model prepared first", model_first=True),
]

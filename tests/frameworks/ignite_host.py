"""Ignite: an update function of one's own in its engine."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin import SAM
from tests.frameworks.by_hand import clip
from tests.frameworks.judge import Host
from tests.frameworks.scenario import (
    BATCHES,
    EPOCHS,
    SIZE,
    Examples,
    Scenario,
    Trace,
    autocast,
    loss_of,
    network,
    optimizer_of,
    scaler_of,
    schedule_of,
    start,
    trace,
)

COUNTED = (Events.ITERATION_STARTED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED)


class Training:
    """What a program with Ignite has: a trainer, and the objects it saves."""

    def __init__(self, of: Scenario) -> None:
        self.of = of
        self.model: nn.Module = idist.auto_model(network(of))
        self.optimizer = idist.auto_optim(optimizer_of(of, self.model))
        self.scaler = scaler_of(of)
        self.schedule = schedule_of(self.optimizer)
        self.losses: list[float] = []
        self.counts = {event.name: 0 for event in COUNTED}
        self.trainer = Engine(self.update)
        self.attach()

    def attach(self) -> None:
        trainer = self.trainer
        for event in COUNTED:
            trainer.add_event_handler(event, self.count, event.name)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.log)
        if self.of.schedule:
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self.advance)
        if self.of.stop is not None:
            event = Events.ITERATION_COMPLETED(once=self.of.stop)
            trainer.add_event_handler(event, trainer.terminate)

    def count(self, name: str) -> None:
        self.counts[name] += 1

    def advance(self) -> None:
        self.schedule.step()

    def log(self) -> None:
        self.losses.append(cast("float", self.trainer.state.output))

    def update(self, trainer: Engine, batch: tuple[Tensor, Tensor]) -> float:
        k, of, optimizer = trainer.state.iteration, self.of, self.optimizer
        self.model.train()
        if (k - 1) % of.accumulate == 0:
            optimizer.zero_grad()
        loss = self.passes(optimizer, *batch)
        if k % of.accumulate == 0:
            self.scaler.unscale_(optimizer)
            clip(of, self.model)
            self.scaler.step(optimizer)
            self.scaler.update()
        return loss

    def passes(self, optimizer: Optimizer, x: Tensor, y: Tensor) -> float:
        if not isinstance(optimizer, SAM):
            return self.one_pass(x, y).item()
        found: list[float] = []
        more = self.of.accumulate > 1
        for probe in optimizer.probes(accumulate=more):
            probe.loss = loss = self.one_pass(*probe.take(x, y))
            found.append(loss.item())
        return found[0]

    def one_pass(self, x: Tensor, y: Tensor) -> Tensor:
        with autocast(self.of):
            loss = loss_of(self.model(x), y)
        self.scaler.scale(loss / self.of.accumulate).backward()
        return loss

    def saved(self) -> dict[str, Any]:
        names = ("model", "optimizer", "schedule", "trainer")
        return {name: getattr(self, name) for name in names}

    def run(self, rank: int) -> None:
        # Ignite goes on at an iteration; the batches before it are left out by hand.
        done = self.trainer.state.iteration % BATCHES * SIZE
        rest = torch.utils.data.Subset(Examples(rank), range(done, BATCHES * SIZE))
        # A loader draws from the global stream otherwise, before the first mask.
        loader = torch.utils.data.DataLoader(rest, SIZE, generator=torch.Generator())
        self.trainer.run(loader, max_epochs=EPOCHS, epoch_length=BATCHES)


def train(of: Scenario, rank: int = 0) -> Trace:
    training = Training(of)
    start()
    training.run(rank)
    losses = training.losses
    if of.stop is not None:
        training = resumed(training)
        training.run(rank)
        losses += training.losses
    return trace(training.model, losses, **training.counts)


def resumed(killed: Training) -> Training:
    """A new training that goes on from files."""
    new = Training(replace(killed.of, stop=None))
    with tempfile.TemporaryDirectory() as folder:
        save = Checkpoint(killed.saved(), DiskSaver(folder), filename_pattern="c.pt")
        save(killed.trainer)
        checkpoint = torch.load(Path(folder, "c.pt"), weights_only=True)
    Checkpoint.load_objects(new.saved(), checkpoint)
    return new


HOSTS = [Host("Ignite, update function", ("pytorch-ignite",), train)]

"""timm: a loop like that of its train.py, with timm's optimizer, schedule, clipping."""

from __future__ import annotations

import io
from typing import Any

import torch
from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]
from timm.scheduler import StepLRScheduler  # pyright: ignore[reportPrivateImportUsage]
from timm.utils import ModelEmaV3, dispatch_clip_grad  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from flatmin import SAM
from tests.frameworks.judge import NONE, Host
from tests.frameworks.scenario import (
    EPOCHS,
    HOOKS,
    LR,
    METHODS,
    MOMENTUM,
    Scenario,
    Trace,
    autocast,
    batches,
    loss_of,
    network,
    scaler_of,
    start,
    trace,
)


class Training:
    """What timm's train.py builds."""

    def __init__(self, of: Scenario) -> None:
        self.of = of
        self.model: nn.Module = network(of)
        if of.processes > 1:
            self.model = DistributedDataParallel(self.model)
        self.optimizer = self.build()
        self.schedule = StepLRScheduler(
            self.optimizer, decay_t=3, decay_rate=0.5, t_in_epochs=False
        )
        self.scaler = scaler_of(of)
        self.ema = ModelEmaV3(self.model, decay=0.5)
        self.updates = 0
        self.losses: list[float] = []

    def build(self) -> Optimizer:
        # "momentum" is without Nesterov's, as torch's SGD is.
        base = create_optimizer_v2(self.model, "momentum", lr=LR, momentum=MOMENTUM)
        if self.of.method is None:
            return base
        return METHODS[self.of.method](base, self.model, rho=self.of.rho)

    def batch(self, k: int, x: Tensor, y: Tensor) -> None:
        self.losses.append(self.passes(x, y))
        if (k + 1) % self.of.accumulate:
            return
        self.clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.updates += 1
        self.ema.update(self.model, step=self.updates)
        if self.of.schedule:
            self.schedule.step_update(self.updates)

    def passes(self, x: Tensor, y: Tensor) -> float:
        if not isinstance(self.optimizer, SAM):
            return self.one_pass(x, y)
        found: list[float] = []
        for probe in self.optimizer.probes(accumulate=self.of.accumulate > 1):
            found.append(self.one_pass(*probe.take(x, y)))
        return found[0]

    def one_pass(self, x: Tensor, y: Tensor) -> float:
        with autocast(self.of):
            loss = loss_of(self.model(x), y)
        self.scaler.scale(loss / self.of.accumulate).backward()
        return loss.item()

    def clip(self) -> None:
        for value, mode in (
            (self.of.clip_norm, "norm"),
            (self.of.clip_value, "value"),
        ):
            if value is not None:
                self.scaler.unscale_(self.optimizer)
                dispatch_clip_grad(self.model.parameters(), value, mode=mode)

    def state_dict(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "ema": self.ema}
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        self.model.load_state_dict(states["model"])
        self.optimizer.load_state_dict(states["optimizer"])
        self.ema.load_state_dict(states["ema"])


def train(of: Scenario, rank: int = 0) -> Trace:
    training = Training(of)
    start()
    stream = [b for _ in range(EPOCHS) for b in batches(rank)]
    for k, (x, y) in enumerate(stream):
        if k == of.stop:
            training = resumed(training)
        training.batch(k, x, y)
    return trace(training.model, training.losses)


def resumed(killed: Training) -> Training:
    """A new training that goes on from a file, as with train.py's --resume."""
    file, new = io.BytesIO(), Training(killed.of)
    torch.save(killed.state_dict(), file)
    file.seek(0)
    new.load_state_dict(torch.load(file, weights_only=True))
    new.updates, new.losses = killed.updates, killed.losses
    return new


# It has no hooks: nothing is called in this loop but what is written there.
HOSTS = [Host("timm, own loop", ("timm",), train, expected={(None, HOOKS): NONE})]

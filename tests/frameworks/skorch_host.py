"""skorch: the mixin, and a plain net whose closure SAM calls."""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, GradientNormClipping, LRScheduler
from torch import Tensor, nn
from torch.optim import SGD

from flatmin.integrations.skorch import SharpnessAware
from tests.frameworks.judge import ALL_COLUMNS, NONE, REFUSED, Host
from tests.frameworks.scenario import (
    BATCHES,
    EPOCHS,
    LR,
    METHODS,
    MOMENTUM,
    SIZE,
    Examples,
    Scenario,
    Trace,
    loss_of,
    network,
    optimizer_of,
    start,
    trace,
)


class Criterion(nn.Module):
    def forward(self, out: Tensor, y: Tensor) -> Tensor:
        return loss_of(out, y)


class SharpNet(SharpnessAware, NeuralNet):
    """With the recipe of skorch's FAQ for accumulation, two words changed."""

    def __init__(self, *args: Any, micro_batches: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.micro_batches = micro_batches

    def get_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().get_loss(*args, **kwargs) / self.micro_batches

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        if self.micro_batches == 1:
            return super().train_step(batch, **fit_params)
        step = self.passes(batch, accumulate=True, **fit_params)
        if len(self.history[-1, "batches"]) % self.micro_batches == 0:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


class ClosureNet(NeuralNet):
    """A plain net with a SAM; nothing else is changed."""

    def __init__(self, *args: Any, of: Scenario, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.of = of

    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> ClosureNet:
        self.optimizer_ = optimizer_of(self.of, self.module_)
        return self


class Count(Callback):
    """Counts the hooks, and ends a training after so many batches."""

    def __init__(self, stop: int | None) -> None:
        self.stop = stop
        self.counts = dict.fromkeys(
            ["on_grad_computed", "on_batch_begin", "on_batch_end", "on_epoch_end"], 0
        )

    def on_grad_computed(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        self.counts["on_grad_computed"] += 1

    def on_batch_begin(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        self.counts["on_batch_begin"] += 1

    def on_batch_end(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        self.counts["on_batch_end"] += 1
        if self.counts["on_batch_end"] == self.stop:
            # skorch ends the training as if it were finished.
            raise KeyboardInterrupt

    def on_epoch_end(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        self.counts["on_epoch_end"] += 1


class ValueClipping(Callback):
    def __init__(self, largest: float) -> None:
        self.largest = largest

    def on_grad_computed(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        nn.utils.clip_grad_value_(net.module_.parameters(), self.largest)


class Schedule(LRScheduler):
    """skorch counts epochs when it goes on; a schedule per batch is kept by hand."""

    lr_scheduler_: Any

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        before = self.lr_scheduler_
        super().on_train_begin(net, **kwargs)
        if before is not None:
            self.lr_scheduler_.load_state_dict(before.state_dict())


def callbacks(of: Scenario, stop: int | None) -> list[tuple[str, Callback]]:
    found: list[tuple[str, Callback]] = []
    if of.clip_norm is not None:
        found.append(("clip", GradientNormClipping(of.clip_norm)))
    if of.clip_value is not None:
        found.append(("clip", ValueClipping(of.clip_value)))
    if of.schedule:
        policy: Any = torch.optim.lr_scheduler.StepLR
        found.append(
            ("schedule", Schedule(policy, step_every="batch", step_size=3, gamma=0.5))
        )
    return [*found, ("count", Count(stop))]


def common(of: Scenario, stop: int | None) -> dict[str, Any]:
    return {
        "module": network(of),
        "criterion": Criterion,
        "max_epochs": EPOCHS,
        "batch_size": SIZE,
        # A loader draws from the global stream otherwise, before the first mask.
        "iterator_train__generator": torch.Generator(),
        "train_split": None,
        "callbacks": callbacks(of, stop),
        "verbose": 0,
    }


def mixin(of: Scenario, stop: int | None = None) -> NeuralNet:
    options: dict[str, Any] = {
        "optimizer": SGD,
        "optimizer__momentum": MOMENTUM,
        "lr": LR,
    }
    options |= common(of, stop)
    if of.method is None:
        return NeuralNet(**options)
    options["method"] = METHODS[of.method]
    return SharpNet(**options, optimizer__rho=of.rho, micro_batches=of.accumulate)


def closure(of: Scenario, stop: int | None = None) -> NeuralNet:
    return ClosureNet(**common(of, stop), of=of)


def with_mixin(of: Scenario, rank: int = 0) -> Trace:
    return train(mixin, of)


def with_closure(of: Scenario, rank: int = 0) -> Trace:
    return train(closure, of)


def train(build: Any, of: Scenario) -> Trace:
    net = build(of, of.stop).initialize()
    start()
    net.partial_fit(Examples(), epochs=EPOCHS)
    losses = logged(net)
    if of.stop is not None:
        net = resumed(net, build(of).initialize(), of.stop)
        losses += logged(net)
    return trace(net.module_, losses, **dict(net.callbacks_)["count"].counts)


def resumed(killed: NeuralNet, net: NeuralNet, stop: int) -> NeuralNet:
    """Go on from files, in the middle of the last epoch."""
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, Any] = {
            f"f_{k}": Path(folder, k) for k in ("params", "optimizer")
        }
        killed.save_params(**paths)
        net.load_params(**paths)
    schedule = dict(killed.callbacks_)["schedule"]
    dict(net.callbacks_)["schedule"].lr_scheduler_ = schedule.lr_scheduler_
    rest = range(stop % BATCHES * SIZE, BATCHES * SIZE)
    return net.partial_fit(torch.utils.data.Subset(Examples(), rest), epochs=1)


def logged(net: NeuralNet) -> list[float]:
    rows = net.history[:, "batches", :, "train_loss"]
    return [loss for row in rows for loss in row]


# skorch itself trains in float32; Accelerate, which does not, is another row.
LEFT_OUT: dict[tuple[str | None, str], str] = {
    (None, column): NONE
    for column in (
        "bf16",
        "fp16",
        "fp16, overflow in the ascent",
        "fp16, overflow in the descent",
    )
}
HOSTS = [
    Host(
        "skorch, SharpnessAware",
        ("skorch",),
        with_mixin,
        several=False,
        expected=LEFT_OUT,
    ),
    Host(
        "skorch, a closure to SAM",
        ("skorch",),
        with_closure,
        several=False,
        expected=dict.fromkeys(product([None], ALL_COLUMNS), REFUSED) | LEFT_OUT,
    ),
]

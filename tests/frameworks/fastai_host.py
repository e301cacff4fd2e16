"""fastai: a Learner with the callback."""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import product
from typing import Any

import torch
from fastai.callback.core import Callback, CancelFitException  # pyright: ignore[reportMissingImports]
from fastai.callback.training import GradientAccumulation, GradientClip  # pyright: ignore[reportMissingImports]
from fastai.data.core import DataLoaders  # pyright: ignore[reportMissingImports]
from fastai.learner import Learner  # pyright: ignore[reportMissingImports]
from fastai.optimizer import SGD as fastai_sgd  # pyright: ignore[reportMissingImports]
from fastai.optimizer import OptimWrapper  # pyright: ignore[reportMissingImports]
from torch import nn
from torch.optim import SGD

from flatmin.integrations.fastai import SharpnessAware
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
    start,
    trace,
)

EVENTS = ("before_batch", "after_backward", "before_step", "after_step", "after_batch")


class Log(Callback):
    """Keeps the losses and counts events; ends a training after so many batches."""

    run_valid = False

    def __init__(self, stop: int | None) -> None:
        super().__init__()
        self.stop, self.losses, self.counts = stop, [], dict.fromkeys(EVENTS, 0)

    def __call__(self, name: str) -> None:
        if name in self.counts:
            self.counts[name] += 1
        return super().__call__(name)

    def after_batch(self) -> None:
        self.losses.append(self.learn.loss.item())
        if len(self.losses) == self.stop:
            raise CancelFitException


class ValueClip(Callback):
    order = GradientClip.order

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.largest = largest

    def before_step(self) -> None:
        nn.utils.clip_grad_value_(self.learn.model.parameters(), self.largest)


class Schedule(Callback):
    """A schedule of torch's; fastai's own go by the part of the fit that is done."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.state = state

    def before_fit(self) -> None:
        self.steps = torch.optim.lr_scheduler.StepLR(self.learn.opt.opt, 3, 0.5)
        if self.state is not None:
            self.steps.load_state_dict(self.state)

    def after_step(self) -> None:
        self.steps.step()


def callbacks(of: Scenario) -> list[Callback]:
    found: list[Callback] = []
    if of.method is not None:
        found.append(SharpnessAware(METHODS[of.method], rho=of.rho))
    if of.clip_norm is not None:
        found.append(GradientClip(of.clip_norm))
    if of.clip_value is not None:
        found.append(ValueClip(of.clip_value))
    if of.accumulate > 1:
        found.append(GradientAccumulation(n_acc=of.accumulate * SIZE))
    return found


def learner(of: Scenario, done: int, folder: str) -> Learner:
    left = torch.utils.data.Subset(Examples(), range(done * SIZE, BATCHES * SIZE))
    # A loader draws from the global stream otherwise, before the first mask.
    loader = torch.utils.data.DataLoader(left, SIZE, generator=torch.Generator())
    return Learner(
        DataLoaders(loader, loader),
        network(of),
        loss_func=loss_of,
        opt_func=partial(OptimWrapper, opt=SGD, momentum=MOMENTUM),
        lr=LR,
        cbs=callbacks(of),
        path=folder,
    )


def fit(learn: Learner, epochs: int, log: Log, schedule: Schedule | None) -> None:
    cbs = [log] if schedule is None else [log, schedule]
    # fit sets the rate anew.
    lr = LR if learn.opt is None else learn.opt.hypers[-1]["lr"]
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, lr=lr, cbs=cbs)


def train(of: Scenario, rank: int = 0) -> Trace:
    log = Log(of.stop)
    schedule = Schedule() if of.schedule else None
    with tempfile.TemporaryDirectory() as folder:
        learn = learner(of, 0, folder)
        start()
        fit(learn, EPOCHS, log, schedule)
        if of.stop is not None and schedule is not None:
            learn.save("killed")
            learn = learner(of, of.stop % BATCHES, folder).load("killed")
            fit(learn, 1, log, Schedule(schedule.steps.state_dict()))
    return trace(learn.model, log.losses, **log.counts)


def with_its_own_sgd(of: Scenario, rank: int = 0) -> Trace:
    with tempfile.TemporaryDirectory() as folder:
        learn = learner(of, 0, folder)
        learn.opt_func = partial(fastai_sgd, mom=MOMENTUM)
        fit(learn, EPOCHS, Log(of.stop), None)
        return trace(learn.model, [])


# MixedPrecision is for CUDA alone.
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
        "fastai, SharpnessAware",
        ("fastai",),
        train,
        several=False,
        expected=LEFT_OUT,
    ),
    Host(
        "fastai, an optimizer of its own",
        ("fastai",),
        with_its_own_sgd,
        several=False,
        expected=dict.fromkeys(product([None], ALL_COLUMNS), REFUSED) | LEFT_OUT,
    ),
]

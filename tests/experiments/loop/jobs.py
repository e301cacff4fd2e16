"""Runs that are killed; for processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flatmin.experiments import evaluate, log, state, train
from flatmin.experiments.config import Experiment
from flatmin.experiments.runs import checkpoint, record
from tests.experiments.loop.problems import pictures, small, trained

#: What is killed: every kind of state, in as few runs as possible.
RUNS: dict[str, dict[str, Any]] = {
    "sgd": {"method": "sgd", "augment": ("flip", "crop")},
    "sam with an average": {
        "ema": 0.8,
        "m": 4,
        "clip": 1.0,
        "warmup": 0.5,
        "channels_last": True,
    },
    "looksam on shake-shake": {
        "model": "shake-shake-8-2x8d",
        "method": "looksam",
        "method_options": {"k": 3},
        "mixup": 1.0,
    },
    "momentum_sam, bootstrapped": {
        "method": "momentum_sam",
        "bootstrap": True,
        "noise": 0.5,
        "optimizer": "adamw",
        "lr": 1e-3,
    },
}


def killed_at(name: str) -> Experiment:
    """Three epochs of three steps."""
    return small(epochs=3, spectrum_at=(2,), **RUNS[name])


def die(*_: Any, **__: Any) -> None:
    """At once, without a chance to tidy up."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_in(place: Any, name: str, call: int, *, after: bool = False) -> None:
    """Die when ``place.name`` is called for the ``call``-th time, before or after."""
    real: Callable[..., Any] = getattr(place, name)
    calls = 0

    def last(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            die()
        result = real(*arguments, **named)
        if calls == call:
            die()
        return result

    setattr(place, name, last)


#: A module or class, a function of it, at which call, and whether before or after it.
Moment = tuple[Any, str, int, bool]

MID_EPOCH: Moment = (train.Training, "step", 2, True)
STORED: Moment = (checkpoint, "write_json", 1, True)

#: Where each run dies, one moment after the other.
MOMENTS: dict[str, list[Moment]] = {
    "sgd": [STORED, MID_EPOCH],
    "sam with an average": [
        STORED,
        MID_EPOCH,
        (state.State, "save", 7, True),  # before the last line of metrics
        (record.Run, "append", 1, True),  # before the result
    ],
    "momentum_sam, bootstrapped": [
        (train.Training, "step", 4, True),
        (train.Training, "step", 8, True),  # of the second network
    ],
    "looksam on shake-shake": [
        (state, "write", 1, False),
        (state, "write", 2, True),  # before checkpoint.json, for the second time
        STORED,  # before the older checkpoint goes
        (checkpoint.shutil, "rmtree", 1, True),
        (record.Run, "append", 1, False),
        (record.Run, "append", 1, True),  # before the checkpoint of that epoch
        (evaluate, "spectrum", 1, True),
        MID_EPOCH,
        (state.State, "whole", 1, True),
        (record, "write", 3, True),  # between predictions and weights
        (record, "write_json", 1, False),  # between weights and result
        (log, "clear", 1, False),
    ],
}


def begin(name: str, folder: Path, moment: int) -> None:
    """Train until the moment comes, with a checkpoint after every step."""
    torch.set_num_threads(1)
    train.CHECKPOINT_EVERY = 0.0
    train._ASK_EVERY = 1
    place, function, call, after = MOMENTS[name][moment]
    die_in(place, function, call, after=after)
    trained(killed_at(name), folder, pictures())

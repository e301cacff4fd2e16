"""What two processes train; started by torchrun.

torchrun --nproc-per-node 2 -m tests.experiments.loop.two FOLDER begin
"""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from flatmin.experiments import train
from flatmin.experiments.config import Experiment
from flatmin.experiments.jobs import Request, train_all
from tests.experiments.loop import jobs
from tests.experiments.loop.problems import pictures, small, trained

PLAIN: dict[str, Any] = {"model": "wrn-10-1-no-bn", "batch_size": 8}

#: Without BatchNorm, and without scalars, which cannot be sharded.
VIT: dict[str, Any] = {
    "model": "test_vit.r160_in1k",
    "weights": "none",
    "model_options": {"img_size": 16},
    "image_size": 16,
    "lr": 0.01,
}

#: Trained by one process and by two.
RUNS: dict[str, Experiment] = {
    "groups": small(
        m=4,
        augment=("flip", "crop"),
        flatness_rho=0.05,
        spectrum_at=(1,),
        ema=0.8,
        clip=1.0,
        **PLAIN,
    ),
    "several groups each": small(m=2, accumulate=2, bootstrap=True, **PLAIN),
    "sgd": small(m=4, method="sgd", **PLAIN),
    "with norm": small(m=4, noise=0.2, ema=0.8, flatness_rho=0.05),
}

#: Of these, two processes have one perturbation, and a half of each group.
SHARDED: dict[str, Experiment] = {
    "whole": small(precision="64-true", clip=1.0, **VIT),
    "halves": small(precision="64-true", m=4, ema=0.8, bootstrap=True, **VIT),
}

#: Is killed, in one of the processes.
KILLED = small(m=4, ema=0.8, method="looksam", method_options={"k": 2}, **PLAIN)

#: Is left by an exception in all of them.
LEFT = small(strategy="fsdp", ema=0.8, **VIT)

#: A cell of a recipe, the rest of which nobody trains here.
CELL = "table4/noise-40/sam"


def request(root: Path) -> Request:
    """Table 4's cell at its smallest."""
    return Request(CELL, small=True, root=root / "runs", data=root / "data")


def folder(root: Path, name: str) -> Path:
    return root / name.replace(" ", "-")


class Left(Exception):
    """What ends a run in all processes."""


def leave(step: int, steps: int) -> None:
    if step == steps - 1:
        raise Left


def main(root: Path, what: str) -> None:
    torch.set_num_threads(1)
    train._ASK_EVERY = 1
    # Test and training images do not come out even.
    data = pictures(27, 13)
    if what == "begin":
        train_all(request(root), Console(file=StringIO()))
        for name, experiment in RUNS.items():
            trained(experiment, folder(root, name), data)
        for name, experiment in SHARDED.items():
            sharded = experiment.model_copy(update={"strategy": "fsdp"})
            trained(sharded, folder(root, name), data)
        trained(KILLED, folder(root, "whole killed"), data)
        if os.environ["RANK"] == "1":
            jobs.die_in(train.Training, "step", 5)
        train.CHECKPOINT_EVERY = 0.0
        trained(KILLED, folder(root, "killed"), data)
    trained(KILLED, folder(root, "killed"), data)
    trained(LEFT, folder(root, "whole left"), data)
    train.CHECKPOINT_EVERY = 0.0
    try:
        trained(LEFT, folder(root, "left"), data, tick=leave)
    except Left:
        trained(LEFT, folder(root, "left"), data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

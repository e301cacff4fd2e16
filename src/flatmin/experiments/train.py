"""One training run, top to bottom; what was interrupted continues to the same end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

import flatmin
from flatmin.experiments.config import Arm, Comparison
from flatmin.experiments.data import Data
from flatmin.experiments.flatness import flatness
from flatmin.experiments.models import small_convnet
from flatmin.experiments.noise import flip_labels
from flatmin.experiments.store import RunStore

#: Checkpoints are written after an epoch if the last one is this old, in seconds.
CHECKPOINT_EVERY = 2.0

#: Called after every epoch with its metrics.
Watcher = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of a comparison."""

    config: Comparison
    arm: Arm
    noise: float
    seed: int

    @property
    def epochs(self) -> int:
        """How often the run sees the training set."""
        return self.config.epochs * self.arm.length

    @property
    def cost(self) -> int:
        """The run's share of the work: epochs times gradients per example."""
        return self.epochs * self.arm.cost

    def batches(self, n: int) -> int:
        """Steps per epoch: batches of equal size, ``batch_size`` or slightly more."""
        return max(n // self.config.batch_size, 1)

    def folder(self, root: Path) -> Path:
        """Where the run lives."""
        return root / noise_name(self.noise) / self.arm.name / f"seed-{self.seed}"

    def labels(self, data: Data) -> Tensor:
        """The training labels, noise included; the same for every arm."""
        return flip_labels(data.y.cpu(), self.noise, len(data.classes), self.seed).to(
            data.y.device
        )

    def model(self, data: Data) -> nn.Module:
        """The network at its initial weights, the same for every arm."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = small_convnet(data.x.shape[1], len(data.classes), self.config.width)
        return model.to(data.x.device)


def noise_name(noise: float) -> str:
    """A folder name for a share of label noise."""
    return f"noise-{100 * noise:g}"


def percent(share: float) -> str:
    """A share of label noise, for people."""
    return f"{100 * share:g} %"


def train(run: Run, data: Data, root: Path, watch: Watcher) -> dict[str, Any]:
    """Train a run to its end, from wherever it was left, and return its result.

    Raises:
        BadInput: its folder is damaged.
    """
    store = RunStore(run.folder(root))
    if (result := store.result()) is not None:
        return result

    config, y, model = run.config, run.labels(data), run.model(data)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    if run.arm.sharpness_aware:
        optimizer = flatmin.SAM(optimizer, model, rho=config.rho)
    schedule = CosineAnnealingLR(optimizer, run.epochs * run.batches(len(y)))

    first, seconds = 0, 0.0
    if (checkpoint := store.load_checkpoint()) is not None:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        schedule.load_state_dict(checkpoint["schedule"])
        first, seconds = checkpoint["epoch"], checkpoint["seconds"]
    store.keep(store.metrics()[:first])

    saved = time.monotonic()
    for epoch in range(first, run.epochs):
        began = time.perf_counter()
        loss = _train_epoch(run, model, optimizer, schedule, data.x, y, epoch)
        seconds += time.perf_counter() - began
        metrics = {
            "epoch": epoch + 1,
            "train_loss": loss,
            "test_error": error(model, data.test_x, data.test_y),
            "gradient_examples": (epoch + 1) * run.arm.cost * len(y),
            "seconds": round(seconds, 3),
        }
        store.append(metrics)
        if time.monotonic() - saved >= CHECKPOINT_EVERY:
            store.save_checkpoint(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "epoch": epoch + 1,
                    "seconds": seconds,
                }
            )
            saved = time.monotonic()
        watch(metrics)

    pairs = zip(data.x.split(1024), y.split(1024), strict=True)
    result = {
        "test_error": error(model, data.test_x, data.test_y),
        "train_error": error(model, data.x, y),
        **flatness(model, pairs, config.sharpness_rho),
        "gradient_examples": run.cost * len(y),
        "seconds": round(seconds, 3),
    }
    store.finish(model.state_dict(), result)
    return result


def _train_epoch(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: CosineAnnealingLR,
    x: Tensor,
    y: Tensor,
    epoch: int,
) -> float:
    """One pass over the training set; returns the mean loss at ``w``."""
    model.train()
    # The order depends on seed and epoch alone, so that a resumed run and every arm
    # see the same batches.
    order = torch.Generator().manual_seed(1_000_003 * run.seed + epoch)
    total = torch.zeros((), device=x.device)
    shuffled = torch.randperm(len(y), generator=order)
    for chosen in shuffled.tensor_split(run.batches(len(y))):
        batch = chosen.to(x.device)
        x_batch, y_batch = x[batch], y[batch]
        if isinstance(optimizer, flatmin.SAM):
            for probe in optimizer.probes():
                loss = cross_entropy(model(x_batch), y_batch)
                loss.backward()
                if not probe.perturbed:
                    total += len(batch) * loss.detach()
        else:
            optimizer.zero_grad()
            loss = cross_entropy(model(x_batch), y_batch)
            loss.backward()
            total += len(batch) * loss.detach()
        optimizer.step()
        schedule.step()
    return total.item() / len(y)


@torch.no_grad()
def error(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of wrong predictions, in per cent."""
    model.eval()
    wrong = sum(
        (model(a).argmax(1) != b).sum()
        for a, b in zip(x.split(1024), y.split(1024), strict=True)
    )
    return 100 * float(wrong) / len(y)

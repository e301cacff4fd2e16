"""The training loop: any method, one process or many, interrupted or not.

Lightning Fabric takes care of devices, precision and processes; the loop is torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from flatmin.experiments.errors import BadInput
from flatmin.experiments.experiment import Experiment
from flatmin.experiments.feed import IGNORED, Batch
from flatmin.experiments.models import build, true_gradient
from flatmin.methods import METHODS
from flatmin.optim import SAM, Probe


class Loop:
    """A network in training.

    Args:
        fabric: of the processes that train it.
        experiment: what decides the numbers.
        classes: length of the network's output.
        channels: of the images.
        steps: of the whole run, for the schedule.
        warmup: how many of them have a rising learning rate.

    Attributes:
        model: the network, as Fabric wraps it.
        optimizer: the method around the base optimizer. Plain SGD is SAM with radius
            0, which is the base optimizer bit for bit, in one pass.
        step: how many steps were taken.
        gradient_examples: over how many examples gradients were taken, by all
            processes together.
    """

    def __init__(
        self,
        fabric: Fabric,
        experiment: Experiment,
        classes: int,
        channels: int,
        steps: int,
        warmup: int = 0,
    ) -> None:
        self.fabric, self.experiment = fabric, experiment
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(experiment.seed)
            network = build(
                experiment.model, classes, channels, **experiment.model_options
            )
        self.model = fabric.setup_module(network)
        self.network = network
        self.optimizer = method(experiment, self.model)
        self._stepper: Any = fabric.setup_optimizers(self.optimizer)
        self._schedule = LambdaLR(self.optimizer, _cosine(steps, warmup))
        # torch's AveragedModel copies the network, which sharding forbids.
        self._average: dict[str, Tensor] = {}
        self._mixed = experiment.precision.endswith("-mixed")
        # Loss, sharpness and error sharpness, and the examples of each, since the last
        # look.
        self._sums = self._zeros(6)
        # The share of wrong predictions at w and at w + eps.
        self._wrong: dict[bool, Tensor | float] = {}
        self.step = self.gradient_examples = 0
        # Dropout and shaking differ between processes, as their images do.
        torch.manual_seed(1_000_003 * experiment.seed + fabric.global_rank + 1)

    def train_step(self, groups: list[Batch]) -> None:
        """One step; each group of examples has a perturbation of its own."""
        self.optimizer.zero_grad()
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        for x, y in groups:
            several = len(groups) > 1
            self._wrong.clear()
            for probe in self.optimizer.probes(accumulate=several, scaler=scaler):
                self._pass(probe, x, y, 1 / len(groups))
            self._note(len(x))
        if self.experiment.clip is not None:
            self.fabric.clip_gradients(
                self.model,
                self._stepper,
                max_norm=self.experiment.clip,
                error_if_nonfinite=False,
            )
        self._stepper.step()
        self._schedule.step()
        if self.experiment.ema is not None:
            self._follow(self.experiment.ema)
        self.step += 1

    def _follow(self, decay: float) -> None:
        """Move the average towards the network as it is; it begins with the first."""
        now = self.network.state_dict()
        if not self._average:
            self._average = {name: x.clone() for name, x in now.items()}
        for name, mean in self._average.items():
            if mean.is_floating_point():
                mean.lerp_(now[name], 1 - decay)
            else:
                mean.copy_(now[name])

    def _pass(self, probe: Probe, x: Tensor, y: Tensor, share: float) -> None:
        """A gradient of one group, in as many parts as memory asks for."""
        x, y = probe.take(x, y)
        parts = min(self.experiment.accumulate, len(x))
        total: Tensor | float = 0.0
        wrong: Tensor | float = 0.0
        pairs = zip(x.tensor_split(parts), y.tensor_split(parts), strict=True)
        for i, (a, b) in enumerate(pairs):
            waits = self.fabric.no_backward_sync(self.model, enabled=i < parts - 1)
            with waits, true_gradient(self.model, when=probe.climbs):
                outputs = self.model(a)
                losses = self.loss(outputs, b, reduction="none")
                self._backward(probe, losses, share * len(a) / len(x))
            total = total + losses.detach().sum()
            likely = b if b.dim() == 1 else b.argmax(1)
            wrong = wrong + (outputs.argmax(1) != likely).sum()
        probe.loss = total / len(x)
        self._wrong[probe.perturbed] = wrong / len(x)

    def _backward(self, probe: Probe, losses: Tensor, share: float) -> None:
        if self._mixed:
            # Fabric scales the loss, and wants to be the one that differentiates it.
            self.fabric.backward(share * losses.mean())
        else:
            probe.backward(losses if share == 1 else share * losses)
        if losses.requires_grad:  # Some methods take passes for the losses alone.
            self.gradient_examples += len(losses) * self.fabric.world_size

    def loss(self, outputs: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """What is trained: cross entropy, with the experiment's label smoothing."""
        smoothing = self.experiment.label_smoothing
        y = y.to(outputs.dtype) if y.is_floating_point() else y
        return F.cross_entropy(
            outputs, y, reduction=reduction, label_smoothing=smoothing
        )

    def _note(self, n: int) -> None:
        found = self.optimizer.statistics
        both = len(self._wrong) == 2
        rise = 100 * (self._wrong[True] - self._wrong[False]) if both else None
        for place, value in enumerate((found.loss, found.sharpness, rise)):
            if value is not None:
                self._sums[2 * place] += n * value
                self._sums[2 * place + 1] += n

    def train_mode(self) -> None:
        """Before training steps: frozen BatchNorm stays as it came."""
        self.model.train()
        if self.experiment.freeze_norm:
            for layer in self.network.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()

    def looked_at(self) -> dict[str, float]:
        """Means over the training steps since the last call, over all processes.

        Returns:
            The learning rate ``lr``; ``train_loss``, if the method takes passes at
            ``w``; ``sharpness`` and ``error_sharpness``, if it takes passes at
            ``w + eps`` too: by how much loss and error (in per cent) of a group rise.
        """
        sums = self._all(self._sums).view(3, 2).tolist()
        self._sums.zero_()
        names = ("train_loss", "sharpness", "error_sharpness")
        found = {k: x / n for k, (x, n) in zip(names, sums, strict=True) if n}
        return {**found, "lr": float(self._schedule.get_last_lr()[0])}

    @torch.no_grad()
    def tested(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Error, top-5 error (per cent) and loss, with the averaged weights if any."""
        self.model.eval()
        sums = self._zeros(4)
        with self.averaged():
            for x, y in batches:
                outputs = self.model(x)
                best = outputs.topk(min(5, outputs.shape[1])).indices
                hits = best == y[:, None]
                real = y != IGNORED
                loss = F.cross_entropy(
                    outputs, y, ignore_index=IGNORED, reduction="sum"
                )
                right = hits[:, :1].any(1).sum(), hits.any(1).sum()
                sums += torch.stack([*right, loss, real.sum()])
        self.train_mode()
        first, five, loss, n = self._all(sums).tolist()
        return {
            "error": 100 * (n - first) / n,
            "top5_error": 100 * (n - five) / n,
            "loss": loss / n,
        }

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the network is what is tested, alike in all processes.

        It has the average of its weights, if there is one, and the first process's
        running statistics.
        """
        mine: dict[str, Tensor] = {}
        if self._average:
            mine = {name: x.clone() for name, x in self.network.state_dict().items()}
            self.network.load_state_dict(self._average)
        if self.fabric.world_size > 1:
            for buffer in self.network.buffers():
                dist.broadcast(buffer, 0)
        try:
            yield
        finally:
            if mine:
                self.network.load_state_dict(mine)

    def state(self) -> dict[str, Any]:
        """All that this process needs to continue to the same end."""
        gpu = self.fabric.device.type == "cuda"
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "average": self._average,
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state() if gpu else None,
            "sums": self._sums,
            "step": self.step,
            "gradient_examples": self.gradient_examples,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._average = {
            name: x.to(self.fabric.device) for name, x in state["average"].items()
        }
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        torch.set_rng_state(state["random"])
        if state["random_gpu"] is not None:
            torch.cuda.set_rng_state(state["random_gpu"])
        self._sums.copy_(state["sums"])
        self.step = state["step"]
        self.gradient_examples = state["gradient_examples"]

    def _zeros(self, n: int) -> Tensor:
        # Apple's devices have no float64.
        exact = torch.float32 if self.fabric.device.type == "mps" else torch.float64
        return torch.zeros(n, dtype=exact, device=self.fabric.device)

    def _all(self, sums: Tensor) -> Tensor:
        total: Any = self.fabric.all_reduce(sums.clone(), reduce_op="sum")
        return total


def method(experiment: Experiment, model: nn.Module) -> SAM:
    """The optimizer of an experiment.

    Raises:
        BadInput: there is no such method, or it does not take these options.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    rates: dict[str, Any] = {"lr": experiment.lr}
    rates["weight_decay"] = experiment.weight_decay
    base: Optimizer
    if experiment.optimizer == "adamw":
        base = torch.optim.AdamW(weights, **rates)
    else:
        momentum, nesterov = experiment.momentum, experiment.nesterov
        base = torch.optim.SGD(weights, momentum=momentum, nesterov=nesterov, **rates)
    if experiment.method == "sgd":
        return SAM(base, model, rho=0.0)
    # JSON has no infinity.
    options = {
        name: math.inf if value == "inf" else value
        for name, value in experiment.method_options.items()
    }
    try:
        return METHODS[experiment.method].build(
            base, model, rho=experiment.rho, **options
        )
    except (TypeError, ValueError) as refused:
        raise BadInput(f"method {experiment.method}: {refused}") from None


def _cosine(steps: int, warmup: int) -> Callable[[int], float]:
    """The learning rate of a step, relative to the highest."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(steps - warmup, 1)
        return (1 + math.cos(math.pi * done)) / 2

    return factor

"""One run from its first step to its result, wherever it was interrupted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from safetensors.torch import save
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)

from flatmin.experiments import checkpoint
from flatmin.experiments.board import Board
from flatmin.experiments.datasets import DataSet, Files
from flatmin.experiments.errors import BadInput
from flatmin.experiments.experiment import Experiment
from flatmin.experiments.feed import IGNORED, Feed, Share
from flatmin.experiments.flatness import Batches, flatness, spectrum
from flatmin.experiments.loop import Loop
from flatmin.experiments.noise import flip_labels
from flatmin.experiments.store import RunStore, write

#: Seconds between two checkpoints.
CHECKPOINT_EVERY = 60.0

#: Steps after which the processes ask whether a checkpoint is due, beside every epoch.
_ASK_EVERY = 100

#: Called with every line of metrics, on one process.
Watcher = Callable[[dict[str, Any]], None]

#: Called after every step with the number of it, and of all.
Ticker = Callable[[int, int], None]


def train(
    fabric: Fabric,
    experiment: Experiment,
    data: DataSet,
    folder: Path,
    watch: Watcher = lambda line: None,
    tick: Ticker = lambda step, steps: None,
) -> dict[str, Any]:
    """Train a run to its end, from wherever it was left, and return its result.

    Every process calls this; the first one writes the files, into a folder that all of
    them can read. What is killed at any moment continues to the same weights, bit for
    bit, with as many processes as it was begun with.

    Args:
        fabric: of the processes, see `flatmin.experiments.processes.launched`.
        experiment: what decides the numbers.
        data: what to train on, and to test with.
        folder: the run's own.
        watch: called on the first process with every line of metrics.
        tick: called on every process after each step.

    Raises:
        BadInput: data, settings or files do not fit, or the disk is full; the folder
            holds what was there before.
    """
    if (result := _result(fabric, RunStore(folder))) is not None:
        return result
    _check_measurable(experiment, data)
    y = flip_labels(
        data.train.y.cpu(),
        experiment.noise,
        len(data.classes),
        experiment.seed,
        true_class=experiment.true_class,
    )
    if not experiment.bootstrap:
        return _Run(fabric, experiment, data, y, folder, watch, tick).finished()
    once = experiment.model_copy(update={"bootstrap": False})
    teacher = _Run(fabric, once, data, y, folder / "teacher", watch, tick)
    spent = teacher.finished()
    y = _predicted(teacher)
    return _Run(fabric, experiment, data, y, folder, watch, tick, spent).finished()


def _result(fabric: Fabric, store: RunStore) -> dict[str, Any] | None:
    """The result of a run that is finished, whose checkpoint is not needed any more."""
    result = fabric.broadcast(store.result())
    if result is not None and fabric.is_global_zero:
        checkpoint.clear(store.folder)
    return result


def _check_measurable(experiment: Experiment, data: DataSet) -> None:
    """Refuse in the beginning what could not be measured in the end."""
    if experiment.flatness_rho is None and not experiment.spectrum_at:
        return
    why = None
    if isinstance(data.train, Files):
        why = f"all images in memory, and those of {data.name} are read from files"
    elif experiment.strategy == "fsdp":
        why = "the weights in one piece, and strategy fsdp shards them"
    elif experiment.precision == "bf16-true":
        why = "weights of 32 bits, and precision bf16-true has 16"
    if why is not None:
        raise BadInput(
            f"sharpness and spectra need {why}. Use --set flatness_rho=null"
            f"{' spectrum_at=[]' if experiment.spectrum_at else ''}."
        )


class _Run:
    """A run, its folder, and what it has used up.

    Args:
        spent: the result of a run whose cost counts as this one's.
    """

    def __init__(
        self,
        fabric: Fabric,
        experiment: Experiment,
        data: DataSet,
        y: Tensor,
        folder: Path,
        watch: Watcher,
        tick: Ticker,
        spent: dict[str, Any] | None = None,
    ) -> None:
        self.fabric, self.experiment = fabric, experiment
        self.watch, self.tick = watch, tick
        self.folder, self.store = folder, RunStore(folder)
        share = Share(fabric.global_rank, fabric.world_size)
        self.feed = Feed(data, y, experiment, fabric.device, share)
        self.steps = experiment.steps_in_all(self.feed.steps)
        warmup = round(experiment.warmup * self.feed.steps)
        classes, channels = len(data.classes), len(data.mean)
        self.loop = Loop(fabric, experiment, classes, channels, self.steps, warmup)
        self.seconds = 0.0
        if spent is not None:
            self.loop.gradient_examples = spent["gradient_examples"]
            self.seconds = spent["seconds"]
        if self.feed.groups > 1 and not getattr(
            self.loop.optimizer.method, "adds_up", True
        ):
            raise BadInput(
                f"method {experiment.method} takes a process's part of the batch as "
                f"one group. Use --set m={experiment.batch_size // share.world}."
            )
        self._last: dict[str, float] = {}
        self._board: Board | None = None
        self._saved = self._began = time.perf_counter()

    def finished(self) -> dict[str, Any]:
        """The result, after what is left to do."""
        if (result := _result(self.fabric, self.store)) is not None:
            return result
        try:
            return self._rest()
        except OSError as error:
            raise BadInput(
                f"{self.folder}: {error.strerror or error}. The same command continues "
                "from the last checkpoint."
            ) from error
        finally:
            if self._board is not None:
                self._board.close()

    def _rest(self) -> dict[str, Any]:
        self._resume()
        self.loop.train_mode()
        while self.loop.step < self.steps:
            epoch, first = divmod(self.loop.step, self.feed.steps)
            self._began = time.perf_counter()
            self._epoch(epoch, first)
            self._pause()
            self._look(epoch + 1)
            self._save_if_due()
        return self._finish()

    def _epoch(self, epoch: int, first: int) -> None:
        """The steps of an epoch that are left."""
        for groups in self.feed.train(epoch, first):
            self.loop.train_step(groups)
            self.tick(self.loop.step, self.steps)
            if self.loop.step == self.steps:
                return
            # The end of an epoch has a line of metrics, before its checkpoint.
            if self.loop.step % _ASK_EVERY == 0 and self.loop.step % self.feed.steps:
                self._pause()
                self._save_if_due()

    def _resume(self) -> None:
        saved = checkpoint.load(self.fabric, self.folder)
        if saved is not None:
            self.loop.load(saved["loop"])
            self.seconds = saved["seconds"]
        if self.fabric.is_global_zero:
            done = self.loop.step
            self.store.keep([m for m in self.store.metrics() if m["step"] <= done])
            self._board = Board(self.folder, done)
            labels = {"y": self.feed.y.contiguous()}
            write(self.folder / "labels.safetensors", save(labels))

    def _pause(self) -> None:
        """Count the time since training went on; what follows is none of it."""
        if self.fabric.device.type != "cpu":
            torch.accelerator.synchronize(self.fabric.device)
        now = time.perf_counter()
        self.seconds += now - self._began
        self._began = now

    def _save_if_due(self) -> None:
        due = time.perf_counter() - self._saved >= CHECKPOINT_EVERY
        if self.fabric.broadcast(due) and self.loop.step < self.steps:
            state = {"loop": self.loop.state(), "seconds": self.seconds}
            checkpoint.save(self.fabric, self.folder, self.loop.step, state)
            self._saved = time.perf_counter()
        self._began = time.perf_counter()

    def _look(self, epoch: int) -> None:
        """Test the network and write down how the epoch went."""
        every, last = self.experiment.evaluate_every, self.loop.step == self.steps
        if epoch % every and epoch not in self.experiment.spectrum_at and not last:
            return
        self._last = self.loop.looked_at()
        found = {"epoch": epoch, "step": self.loop.step, **self._last}
        tested = self.loop.tested(self.feed.test())
        found |= {
            "test_error": tested["error"],
            "top5_error": tested["top5_error"],
            "test_loss": tested["loss"],
            "gradient_examples": self.loop.gradient_examples,
            "seconds": round(self.seconds, 3),
        }
        if epoch in self.experiment.spectrum_at:
            found |= spectrum(self.loop.network, self._measured(), self._group)
            self.loop.train_mode()
        if self.fabric.is_global_zero:
            line = _finite(found)
            self.store.append(line)
            if self._board is not None:
                self._board.add(line)
            self.watch(line)

    def _finish(self) -> dict[str, Any]:
        """Measure what was found, store it, and forget the checkpoint."""
        loop, feed = self.loop, self.feed
        tested, trained = loop.tested(feed.test()), loop.tested(feed.plain())
        result = {
            "test_error": tested["error"],
            "top5_error": tested["top5_error"],
            "train_error": trained["error"],
            "error_sharpness": self._last.get("error_sharpness"),
            "gradient_examples": loop.gradient_examples,
            "seconds": round(self.seconds, 3),
            "steps": loop.step,
            "parameters": sum(p.numel() for p in loop.network.parameters()),
        }
        with loop.averaged():
            if self.experiment.flatness_rho is not None:
                result |= flatness(
                    loop.network,
                    self._measured(),
                    self.experiment.flatness_rho,
                    self._group,
                )
            # They are the network's own, and the average only in here.
            weights = _whole(loop.network)
            if self.fabric.is_global_zero:
                self.store.finish(weights, _finite(result))
                checkpoint.clear(self.folder)
        self.fabric.barrier()
        return _finite(result)

    @property
    def _group(self) -> dist.ProcessGroup | None:
        return dist.group.WORLD if self.fabric.world_size > 1 else None

    def _measured(self) -> Batches:
        """This process's training images, none of them twice."""
        kind = next(self.loop.network.parameters()).dtype
        real = ((x.to(kind), y, y != IGNORED) for x, y in self.feed.plain())
        return [(x[here], y[here]) for x, y, here in real]


def _predicted(run: _Run) -> Tensor:
    """The labels that a finished run's network gives the training images."""
    options = StateDictOptions(full_state_dict=True)
    weights: dict[str, Any] = {**run.store.weights()}
    set_model_state_dict(run.loop.network, weights, options=options)
    run.loop.model.eval()
    everything = run.feed.alone()
    with torch.no_grad():
        return torch.cat([run.loop.model(x).argmax(1).cpu() for x, _ in everything])


def _whole(network: nn.Module) -> dict[str, Tensor]:
    """The weights of all processes, where they are sharded."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: dict[str, Any] = get_model_state_dict(network, options=options)
    return state


def _finite(numbers: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: what cannot be measured is null."""
    return {
        name: None if isinstance(x, float) and not math.isfinite(x) else x
        for name, x in numbers.items()
    }

"""One run: set-up, steps, tests, checkpoints, result; the file is in this order.

Lightning Fabric takes care of devices, precision and processes; the loop is torch's.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

from flatmin.experiments import evaluate, prepare
from flatmin.experiments.batches import Batch, Batches, Share, as_input
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import DataSet
from flatmin.experiments.errors import BadInput
from flatmin.experiments.log import Log, in_step
from flatmin.experiments.models import true_gradient
from flatmin.experiments.progress import Watcher
from flatmin.experiments.runs.checkpoint import clear, committed
from flatmin.experiments.runs.record import Run
from flatmin.experiments.state import State
from flatmin.experiments.tasks import NO_CLASS, Forecasted, Tested, counted, task_of
from flatmin.optim import Probe

#: Seconds between two checkpoints.
CHECKPOINT_EVERY = 60.0

#: Steps between two checks whether a checkpoint is due; each epoch's end checks too.
_ASK_EVERY = 100

#: What a result copies from the last line of metrics, besides the test.
_REPEATED = ("error_sharpness", "gradient_examples", "seconds")


def finished(fabric: Fabric, folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished run, or None, and remove its checkpoint."""
    result = fabric.broadcast(Run(folder).result())
    if result is not None and fabric.is_global_zero:
        clear(folder)
    return result


class Training:
    """A network in training; to construct it writes no file.

    Args:
        fabric: of the processes that train it.
        experiment: what decides the numbers.
        data: what to train on, and to test with.
        y: the labels to train ``[n]``; None for the data's, with the experiment's
            noise.

    Attributes:
        task: what the network is trained for.
        batches: what this process reads.
        steps: of the whole run.
        model: the network, as Fabric wraps it.
        optimizer: the method around the base optimizer.
        schedule: of the learning rate.
        state: all that a checkpoint holds.

    Raises:
        BadInput: a setting does not fit the data, the network, the method or the
            number of processes.
    """

    def __init__(
        self,
        fabric: Fabric,
        experiment: Experiment,
        data: DataSet,
        y: Tensor | None = None,
    ) -> None:
        prepare.check_measurable(experiment, data)
        self.fabric, self.experiment, self.data = fabric, experiment, data
        self.task = task_of(experiment)
        y = prepare.noisy_labels(experiment, data) if y is None else y
        share = Share(fabric.global_rank, fabric.world_size)
        self.batches = Batches(data, y, experiment, fabric.device, share)
        self.steps = experiment.steps_in_all(self.batches.steps)
        outputs = experiment.horizon or len(data.classes)
        network = prepare.network(experiment, outputs, len(data.mean))
        network = network.to(fabric.device)
        fewest = prepare.fewest(experiment, self.batches.examples)
        prepare.check_pass(experiment, network, self.batches.few(fewest), outputs)
        self.model = fabric.setup_module(network)
        self.optimizer = prepare.optimizer(experiment, self.model)
        prepare.check_groups(experiment, self.batches, self.optimizer)
        self._stepper: Any = fabric.setup_optimizers(self.optimizer)
        self.schedule = prepare.schedule(
            experiment, self.optimizer, self.batches.steps, self.steps
        )
        self.state = State(
            fabric, network, self.optimizer, self.schedule, experiment.ema
        )
        self._predicted: dict[str, list[Tensor]] = {}
        self._mixed = experiment.precision.endswith("-mixed")
        self._began = self._saved = time.perf_counter()
        # Dropout and shaking differ between processes, as their images do.
        torch.manual_seed(1_000_003 * experiment.seed + fabric.global_rank + 1)

    def run(
        self,
        folder: Path,
        watcher: Watcher | None = None,
        twin: Path | None = None,
    ) -> dict[str, Any]:
        """Train to the end, from wherever it was left, and return the result.

        Every process calls this; the first one writes the files, into a folder that
        all of them can read. A run that was killed at any moment continues to the same
        weights, bit for bit, if it has as many processes as before. An experiment that
        bootstraps its labels is trained twice.

        Args:
            folder: the run's own.
            watcher: is told of every step and of every test.
            twin: the folder of the same run without an average of its weights, to be
                written too; None for none. It is left alone if a training of its own
                has begun it, or if labels are bootstrapped: its teacher is another.

        Raises:
            BadInput: files are damaged, the disk is full, or the first of two trainings
                has diverged.
        """
        watcher = watcher or Watcher()
        if not self.experiment.bootstrap:
            return self._run(folder, watcher, twin)
        spent = self._run(folder / "teacher", watcher)
        self.state.restore(Run(folder / "teacher").weights())
        y = self._taught(folder / "teacher")
        second = Training(self.fabric, self.experiment, self.data, y)
        second.state.gradient_examples = spent["gradient_examples"]
        second.state.seconds = spent["seconds"]
        return second._run(folder, watcher)

    def _taught(self, folder: Path) -> Tensor:
        """Return what the teacher, whose weights the network has, predicts ``[n]``.

        Raises:
            BadInput: it has diverged, and predicts no class for an example.
        """
        y = evaluate.predictions(self.model, self.batches.alone()).cpu()
        if none := int((y == NO_CLASS).sum()):
            raise BadInput(
                f"{folder} has diverged: its outputs are not finite on {none:,} of "
                f"{len(y):,} training {self.task.examples}, which therefore have no "
                "labels for the second training. Train with a smaller lr, into another "
                "--out."
            )
        return y

    def _run(
        self, folder: Path, watcher: Watcher, twin: Path | None = None
    ) -> dict[str, Any]:
        if (result := finished(self.fabric, folder)) is not None:
            return result
        try:
            self.state.load(folder)
            # The last step's checkpoint is before its line, which is made again.
            kept = min(self.state.step, self.steps - 1)
            logs = [Log(self.fabric, folder, kept, watcher)]
            if twin is not None and self._comes_along(twin, folder, kept):
                logs.append(Log(self.fabric, twin, kept, Watcher()))
            with ExitStack() as stack:
                for log in logs:
                    stack.enter_context(closing(log))
                    log.keep_labels(self.batches.y)
                return self._loop(*logs)
        except OSError as error:
            raise BadInput(
                f"{folder}: {error.strerror or error}. The same command continues "
                "from the last checkpoint."
            ) from error

    def _comes_along(self, twin: Path, folder: Path, kept: int) -> bool:
        """Whether no training of its own has begun the twin."""
        own = committed(twin, self.fabric.world_size)
        return own is None and in_step(folder, twin, kept)

    def _loop(self, log: Log, twin: Log | None = None) -> dict[str, Any]:
        if self.state.step < self.steps:
            self._train(log, twin)
            # Whatever fails from here on does not cost the training.
            self.state.save(log.folder)
        self._look(-(-self.steps // self.batches.steps), log, twin)
        return self._finish(log, twin)

    def _train(self, log: Log, twin: Log | None) -> None:
        """Take all steps that are left, and test after the epochs before the last."""
        self._epoch(log)
        while self.state.step < self.steps:
            epoch = self.state.step // self.batches.steps
            if self._is_tested(epoch):
                self._look(epoch, log, twin)
            self._save_if_due(log.folder)
            self._epoch(log)

    def _epoch(self, log: Log) -> None:
        """Train to the end of an epoch, or to the last step."""
        state, batches = self.state, self.batches
        epoch, first = divmod(state.step, batches.steps)
        self.train_mode()
        self._began = time.perf_counter()
        for groups in batches.train(epoch, first):
            self.step(groups)
            log.watcher.step(state.step, self.steps)
            if state.step == self.steps:
                break
            # At an epoch's end, the line of metrics comes before the checkpoint.
            if state.step % _ASK_EVERY == 0 and state.step % batches.steps:
                self._stop_clock()
                self._save_if_due(log.folder)
                self._began = time.perf_counter()
        self._stop_clock()

    def train_mode(self) -> None:
        """Put the network into training mode."""
        prepare.train_mode(self.experiment, self.model)

    def step(self, groups: list[Batch]) -> None:
        """Take one step; each group of examples has a perturbation of its own."""
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        several, share = len(groups) > 1, 1 / len(groups)
        self.optimizer.zero_grad()
        for x, y in groups:
            errors: dict[bool, Tensor] = {}
            for probe in self.optimizer.probes(accumulate=several, scaler=scaler):
                a, b = probe.take(x, y)
                wrong = self._pass(probe, a, b, share)
                if wrong and (probe.ascended or not probe.perturbed):
                    errors[probe.perturbed] = torch.stack(wrong).sum() / len(a)
            self._note(len(x), errors)
        if (clip := self.experiment.clip) is not None:
            self.fabric.clip_gradients(
                self.model, self._stepper, max_norm=clip, error_if_nonfinite=False
            )
        self._stepper.step()
        self.schedule.step()
        if self.state.average is not None:
            self.state.average.update()
        self.state.step += 1

    def _pass(self, probe: Probe, x: Tensor, y: Tensor, share: float) -> list[Tensor]:
        """Take a gradient of one group, in ``accumulate`` parts to save memory.

        Returns:
            The number of wrong predictions of each part; empty for a forecast.
        """
        parts = min(self.experiment.accumulate, len(x))
        loss, wrong = torch.zeros((), device=x.device), list[Tensor]()
        pairs = zip(x.tensor_split(parts), y.tensor_split(parts), strict=True)
        for i, (a, b) in enumerate(pairs):
            waits = self.fabric.no_backward_sync(self.model, enabled=i < parts - 1)
            with waits, true_gradient(self.model, when=probe.climbs):
                outputs = self.model(a)
                losses = self.loss(outputs, b)
                self._backward(probe, losses, share * len(a) / len(x))
            loss = loss + losses.detach().sum()
            wrong += self.task.wrong(outputs, b)
        probe.loss = loss / len(x)
        return wrong

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the training loss of each example, with the label smoothing."""
        return self.task.losses(outputs, y, self.experiment.label_smoothing)

    def _backward(self, probe: Probe, losses: Tensor, share: float) -> None:
        if self._mixed:
            # Fabric scales the loss, so its own backward has to be called.
            self.fabric.backward(share * losses.mean())
        else:
            probe.backward(losses if share == 1 else share * losses)
        if losses.requires_grad:  # Some methods take passes for the losses alone.
            self.state.gradient_examples += len(losses) * self.fabric.world_size

    def _note(self, n: int, errors: dict[bool, Tensor]) -> None:
        """Add a group's loss, and the rise of its loss and error, to the means."""
        found = self.optimizer.statistics
        rise = 100 * (errors[True] - errors[False]) if len(errors) == 2 else None
        self.state.means.add(n, (found.loss, found.sharpness, rise))

    def _stop_clock(self) -> None:
        """Wait for the device, and add the time since training resumed."""
        if self.fabric.device.type != "cpu":
            torch.accelerator.synchronize(self.fabric.device)
        self.state.seconds += time.perf_counter() - self._began

    def _save_if_due(self, folder: Path) -> None:
        due = time.perf_counter() - self._saved >= CHECKPOINT_EVERY
        if self.fabric.broadcast(due):
            self.state.save(folder)
            self._saved = time.perf_counter()

    def _is_tested(self, epoch: int) -> bool:
        at = self.experiment.spectrum_at
        return epoch in at or epoch % self.experiment.evaluate_every == 0

    def _look(self, epoch: int, log: Log, twin: Log | None) -> None:
        """Test the network, and write the epoch's line of metrics."""
        state = self.state
        line = {"epoch": epoch, "step": state.step, **state.means.read(self.fabric)}
        line["lr"] = float(self.schedule.get_last_lr()[0])
        rest: dict[str, Any] = {"gradient_examples": state.gradient_examples}
        rest["seconds"] = round(state.seconds, 3)
        with state.averaged():
            tested = self._tested("test").line("test")
        last = None
        if self.experiment.ema is not None:
            with state.alike():
                last = self._tested("last")
            tested |= last.line("last")
        if epoch in self.experiment.spectrum_at:
            measured = self._measured()
            rest |= evaluate.spectrum(state.network, measured, self._group, self.task)
        log.add(line | tested | rest)
        if twin is not None and last is not None:
            twin.add(line | last.line("test") | rest)

    def _tested(self, part: str) -> Tested | Forecasted:
        """Test the network, and keep the classes that it predicts for `_finish`."""
        test = self.batches.test()
        numbers, found = evaluate.tested(self.fabric, self.model, test, self.task)
        self._predicted[part] = found
        return numbers

    def _finish(self, log: Log, twin: Log | None) -> dict[str, Any]:
        """Measure the trained network, store the result, and remove the checkpoint."""
        predicted = self._predictions()
        if self.experiment.flatness_rho is not None:
            log.watcher.says("measuring sharpness")
        if twin is not None:
            last = {"test": predicted["last"]} if predicted else {}
            with self.state.alike():
                self._store(twin, last)
        with self.state.averaged():
            # Stored in the block: only here does the network have its average.
            result = self._store(log, predicted)
        self.fabric.barrier()
        return result

    def _store(self, log: Log, predicted: dict[str, Tensor]) -> dict[str, Any]:
        """Measure the network as it is now, and store the result."""
        state, rho = self.state, self.experiment.flatness_rho
        last = self.task.score.replace("test", "last")
        repeated = [*self.task.tests, *_REPEATED, *([last] if last in log.last else ())]
        result = {name: log.last.get(name) for name in repeated}
        result["steps"] = state.step
        result["parameters"] = sum(p.numel() for p in state.network.parameters())
        plain = self.batches.plain()
        trained, _ = evaluate.tested(self.fabric, self.model, plain, self.task)
        result |= trained.line("train")
        if rho is not None:
            measured = self._measured()
            result |= evaluate.flatness(
                state.network, measured, rho, self._group, self.task
            )
        return log.finish(state.whole(), predicted, result)

    @property
    def _group(self) -> dist.ProcessGroup | None:
        return dist.group.WORLD if self.fabric.world_size > 1 else None

    def _measured(self) -> evaluate.Images:
        """This process's training examples, without fillers."""
        kind = next(self.state.network.parameters()).dtype
        real = ((as_input(x, kind), y, counted(y)) for x, y in self.batches.plain())
        return [(x[here], y[here]) for x, y, here in real]

    def _predictions(self) -> dict[str, Tensor]:
        """Return the labels that the last tests predicted, in order; no forecasts."""
        n = len(self.data.test.y)
        return {
            part: evaluate.gathered(self.fabric, torch.cat(found))[:n]
            for part, found in self._predicted.items()
            if found
        }

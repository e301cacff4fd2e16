"""A replacement for the ``training_step`` of a Lightning strategy."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, cast

from torch import Tensor

from flatmin.core._scope import replicas
from flatmin.integrations._batch import Handed
from flatmin.optim import SAM, Probe


class Passes:
    """Replaces a strategy's ``training_step``, and begins a `probes` loop in it.

    Lightning has no hook in this place: inside of its ``no_sync`` for accumulation, and
    outside of the ``forward`` of a wrapper that reads whether to average.

    Attributes:
        muted: whether a pass after the first is running.
    """

    def __init__(self, module: Any, sam: SAM) -> None:
        self.module, self.muted = module, False
        self._sam, self._trainer = sam, module.trainer
        self._step = self._trainer.strategy.training_step
        self._loop: Generator[Probe] | None = None
        self._probe: Any = None
        self._handed = Handed(None)
        self._arguments: tuple[Any, ...] = ()
        self._synced: list[tuple[Any, bool]] = []

    @property
    def running(self) -> bool:
        """Whether a loop is open."""
        return self._loop is not None

    def __call__(self, batch: Any, *others: Any) -> Any:
        """Run Lightning's pass over a batch, as the first of the loop."""
        self.close()
        if not self._is_wanted():
            return self._step(batch, *others)
        self._handed, self._arguments = Handed(batch), others
        try:
            self._open()
            output = self._pass()
        except BaseException:
            self.close()
            raise
        if output is None:
            self.close()
        return output

    def finish(self, loss: Tensor) -> None:
        """Differentiate the first pass, and run the others."""
        try:
            self._probe.backward(loss)
            self.muted = True
            for probe in cast("Generator[Probe]", self._loop):
                self._probe = probe
                probe.backward(self._prepared(_loss_of(self._pass())))
        finally:
            self.close()

    def close(self) -> None:
        """Leave the loop, if one is open: the weights are w."""
        loop, self._loop, self._probe, self.muted = self._loop, None, None, False
        self._handed, self._arguments = Handed(None), ()
        if loop is not None:
            loop.close()
        while self._synced:
            part, synced = self._synced.pop()
            part.require_backward_grad_sync = synced

    def _is_wanted(self) -> bool:
        """Whether this is a step of SAM.

        It is none if an exception has left this object from an earlier training. And
        weight averaging has an epoch without backward passes, to renew the statistics
        of BatchNorm.
        """
        trainer = self._trainer
        skips = getattr(trainer.fit_loop, "_skip_backward", False)
        mine = trainer.optimizers[:1] == [self._sam]
        return mine and self.module.automatic_optimization and not skips

    def _open(self) -> None:
        every = self._trainer.accumulate_grad_batches
        if every > 1 and self._trainer.fit_loop.batch_idx % every == 0:
            # Lightning does so after the first pass, when the loop has begun.
            self._sam.zero_grad()
        for part in replicas(self._sam.model):
            # Each batch has a gradient of its own, which has to be averaged.
            self._synced.append((part, part.require_backward_grad_sync))
            part.require_backward_grad_sync = True
        scaler = getattr(self._trainer.precision_plugin, "scaler", None)
        loop = self._sam.probes(accumulate=every > 1, scaler=scaler)
        self._loop = cast("Generator[Probe]", loop)
        self._probe = next(self._loop)

    def _pass(self) -> Any:
        output = self._step(self._handed.to(self._probe), *self._arguments)
        if output is not None:
            self._probe.loss = _loss_of(output).detach().mean()
        elif self.muted:
            raise RuntimeError(
                "training_step returned None in a pass after the first, so there is "
                "nothing to descend. Decide in the first pass, by the batch, whether "
                "to skip it."
            )
        return output

    def _prepared(self, loss: Tensor) -> Tensor:
        """Scale the loss as Lightning does before it calls ``backward``."""
        scaler = getattr(self._trainer.precision_plugin, "scaler", None)
        loss = loss / self._trainer.accumulate_grad_batches
        return loss if scaler is None else scaler.scale(loss)


def passes_of(module: Any) -> Passes | None:
    """Return what runs the module's passes; None outside of training."""
    strategy = getattr(getattr(module, "_trainer", None), "strategy", None)
    step = getattr(strategy, "training_step", None)
    return step if isinstance(step, Passes) and step.module is module else None


def _loss_of(output: Any) -> Tensor:
    return output["loss"] if isinstance(output, Mapping) else output

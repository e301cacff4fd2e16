"""The engine: runs a method's program, and is alone in touching the model.

Moving and restoring weights, clearing and writing gradients, buffers and random
streams are here, once, for every method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from flatmin.core import Ascent, Ask, Gradients, Program, Scope, Step, whole
from flatmin.core import _tensors as ts
from flatmin.core import vectors as vec
from flatmin.core._scope import replicas
from flatmin.core._shards import Shards, whole_as
from flatmin.optim._objective import Objective
from flatmin.optim._probe import Probe, Statistics
from flatmin.optim._replay import BufferReplay, RandomReplay, Replay
from flatmin.optim._weights import Weights


class Engine:
    """Everything around the passes of a step.

    Attributes:
        statistics: what the last finished step measured.
        unperturbed: how many steps had nothing to climb; a 0-dim tensor after the
            first ascent.
    """

    def __init__(
        self,
        model: nn.Module,
        scope: Scope,
        *,
        protect_buffers: bool,
        replay_rng: bool,
        track: bool,
    ) -> None:
        self.statistics = Statistics()
        self.unperturbed: Tensor | int = 0
        self._model = model
        self._scope = scope
        self._track = track
        # With this option gradients are views of buckets, which every pass fills anew.
        self._views = any(part.gradient_as_bucket_view for part in replicas(model))
        self._weights = Weights()
        self._replays: list[Replay] = []
        if protect_buffers:
            self._replays.append(BufferReplay(model))
        if replay_rng:
            self._replays.append(RandomReplay())

    def run(
        self,
        program: Program,
        step: Step,
        *,
        accumulate: bool,
        scaler: GradScaler | None,
    ) -> Iterator[Probe]:
        """One pass per yield; afterwards ``.grad`` holds what the program returned.

        However the loop is left, the weights are ``w`` again. If an accumulating loop
        is left early, the gradients are those from before it.
        """
        everyone = list(dict.fromkeys([*self._model.parameters(), *step.w]))
        before = self._held(everyone) if accumulate else []
        log = _Log(step.w, track=self._track)
        objective = Objective(step, scaler)
        ask, descend, rewound, alone = next(program), None, False, False
        try:
            while descend is None:
                _write(everyone, [None] * len(everyone))
                for replay in self._replays:
                    replay.rewind() if log.passes else replay.begin(everyone)
                rewound = log.passes > 0
                if ask.at is not None:
                    log.climbs(ask.at)
                    self._weights.move(step.w, ask.at.eps, step.index)
                probe = Probe(log.passes, ask, _pairs(step.w, ask.along))
                alone = ask.climbs or ask.alone
                with self._around(ask):
                    yield probe
                self._weights.restore()
                if not rewound:
                    for replay in self._replays:
                        replay.keep()
                probe.check_answer()
                if probe.losses is not None:
                    step.losses.append(probe.losses)
                log.add(probe, ask)
                ask, descend = self._answer(program, ask, log, objective)
            _check_descent(descend)
            if alone:
                descend = self._scope.average(self._model, step.w, descend)
            _write(step.w, objective.shown(descend))
            if accumulate:
                _accumulate(everyone, before)
        except BaseException:
            if accumulate:
                _write(everyone, before)
            raise
        finally:
            program.close()
            self._weights.restore()
            if rewound:
                for replay in self._replays:
                    replay.finish()
        self.statistics = log.statistics()
        self.unperturbed = self.unperturbed + log.unperturbed

    def _around(self, ask: Ask) -> AbstractContextManager[object]:
        """What surrounds a pass."""
        if not ask.backward:
            # DistributedDataParallel would wait for the backward pass of a forward
            # pass that has a graph.
            return torch.no_grad()
        alone = ask.climbs or ask.alone
        return self._scope.alone(self._model) if alone else nullcontext()

    def _answer(
        self, program: Program, ask: Ask, log: _Log, objective: Objective
    ) -> tuple[Ask, Gradients | None]:
        """The program's next request, or what to descend.

        A method of its own, so that no gradient outlives it unless the program, or the
        log for the cosine, holds on to it: the next pass needs the memory.
        """
        g = self._held(log.w)
        _check_dense(log.w, g)
        g = objective.seen(g)
        if ask.along is None and ask.backward:
            log.keep(g)
        g = self._scope.share(log.w, g) if ask.climbs else g
        try:
            return program.send(g), None
        except StopIteration as finished:
            return ask, _descent(finished.value)

    def _held(self, ps: list[Tensor]) -> Gradients:
        """The gradients of ``ps``, in memory that the next pass does not write to."""
        if self._views:
            return [None if p.grad is None else p.grad.clone() for p in ps]
        return [p.grad for p in ps]


@dataclass(slots=True)
class _Log:
    """What the passes of one step measure."""

    w: list[Tensor]
    track: bool
    passes: int = 0
    loss: Tensor | None = None
    perturbed_loss: Tensor | None = None
    grad_norm: Tensor | None = None
    eps_norm: Tensor | None = None
    unperturbed: Tensor | int = 0
    first: Gradients = field(default_factory=list[Tensor | None])
    last: Gradients = field(default_factory=list[Tensor | None])

    def climbs(self, ascent: Ascent) -> None:
        """Take in where the next pass will be.

        A first pass that is away already knows less of its gradient than the second,
        and of later ascents neither counts.
        """
        if self.grad_norm is not None and self.passes != 1:
            return
        self.grad_norm, self.unperturbed = ascent.norm, ~ascent.ok
        if self.track:
            self.eps_norm = vec.norm(self.w, ascent.eps)

    def add(self, probe: Probe, ask: Ask) -> None:
        """Take in a finished pass; a loss of all examples counts more than of some."""
        if ask.at is None:
            if self.loss is None or ask.batch is whole:
                self.loss = probe.loss
        else:
            if self.perturbed_loss is None or ask.batch is whole:
                self.perturbed_loss = probe.loss
        self.passes += 1

    def keep(self, g: Gradients) -> None:
        """Take in its gradient."""
        if self.track:
            self.first, self.last = self.first or g, g

    def statistics(self) -> Statistics:
        """The finished record."""
        return Statistics(
            passes=self.passes,
            loss=self.loss,
            perturbed_loss=self.perturbed_loss,
            grad_norm=self.grad_norm,
            eps_norm=self.eps_norm,
            cosine=self._cosine(),
        )

    def _cosine(self) -> Tensor | None:
        if self.passes < 2 or not self.track:
            return None
        both = [
            (w, a, b)
            for w, a, b in zip(self.w, self.first, self.last, strict=True)
            if a is not None and b is not None and a.numel() > 0
        ]
        if not both:
            return None
        w = [w for w, _, _ in both]
        first, last = [a for _, a, _ in both], [b for _, _, b in both]
        return ts.cosine(first, last, Shards.of(w).norm)


def _check_dense(w: list[Tensor], g: Gradients) -> None:
    for p, g_i in zip(w, g, strict=True):
        if g_i is not None and g_i.layout != torch.strided:
            raise RuntimeError(
                f"a parameter of shape {tuple(p.shape)} has a sparse gradient, which "
                "SAM cannot use. Build its layer with sparse=False."
            )


def _pairs(
    w: list[Tensor], along: Gradients | None
) -> list[tuple[Tensor, Tensor]] | None:
    if along is None:
        return None
    return [(p, whole_as(v, p)) for p, v in zip(w, along, strict=True) if v is not None]


def _write(ps: Sequence[Tensor], gs: Gradients) -> None:
    for p, g in zip(ps, gs, strict=True):
        p.grad = g


@torch.no_grad()
def _accumulate(ps: Sequence[Tensor], before: Gradients) -> None:
    """Add the new gradients to those from before, in the latter's storage."""
    for p, old in zip(ps, before, strict=True):
        if old is not None and p.grad is not None:
            old.add_(p.grad)
        p.grad = p.grad if old is None else old


def _descent(value: Any) -> Gradients:
    """What a program returned, or TypeError if it is nothing to descend."""
    if not isinstance(value, list):
        raise TypeError(
            "a method returns the vector to descend, a list with an entry per "
            f"parameter, got {type(value).__name__}. End it with: return (yield Ask())."
        )
    return cast("Gradients", value)


def _check_descent(descend: Gradients) -> None:
    if all(v is None for v in descend):
        raise RuntimeError(
            "no parameter has a gradient after the probes() loop. Call "
            "loss.backward() in its body."
        )

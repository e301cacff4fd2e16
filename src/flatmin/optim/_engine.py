"""The engine: runs a method's program, and is alone in touching the model.

Moving and restoring weights, clearing and writing gradients, buffers and random
streams are here, once, for every method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from flatmin.core import Ascent, Ask, Gradients, Point, Program, Scope, Step
from flatmin.core._autograd import has_weight_norm, weight_norm_by_hand
from flatmin.core._fsdp import drop_unreduced, has_unreduced, reshard
from flatmin.core._scope import replicas
from flatmin.core._shards import any_sharded, whole_as
from flatmin.optim._check_replay import ReplayCheck
from flatmin.optim._gradient_view import GradientView
from flatmin.optim._guard import mark_used
from flatmin.optim._hooks import untraced
from flatmin.optim._model_replay import ModelReplay
from flatmin.optim._outside import nothing_outside
from flatmin.optim._probe import Probe
from flatmin.optim._replay import RandomReplay, Replay
from flatmin.optim._statistics import Log, Statistics
from flatmin.optim._weights import Weights
from flatmin.optim._wrapping import has_wrapper, seen_wrapped


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
        check: str | None = None,
    ) -> None:
        self.statistics = Statistics()
        self.unperturbed: Tensor | int = 0
        self._model = model
        self._scope = scope
        self._track = track
        # With this option gradients are views of buckets, which every pass fills anew.
        self._views = any(part.gradient_as_bucket_view for part in replicas(model))
        self._reused = self._views
        self._weights = Weights()
        self._met_all = self._sharded = False
        self._check = ReplayCheck(model) if check == "replay" else None
        self._replays: list[Replay] = []
        self._protects = protect_buffers
        streams = RandomReplay() if replay_rng else None
        if protect_buffers:
            self._replays.append(ModelReplay(model, self._weights, streams))
        if streams is not None:
            self._replays.append(streams)

    @property
    def away(self) -> bool:
        """Whether the weights are at ``w + eps`` now."""
        return self._weights.moved

    def drop_unreduced(self) -> None:
        """Drop gradients that FSDP2 keeps and has not yet put into ``.grad``."""
        if self._sharded:
            drop_unreduced(self._model)

    def reshard(self) -> None:
        """Before weights move: whole ones, which FSDP2 may hold, would stay behind."""
        if self._sharded:
            reshard(self._model)

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
        self._sharded = any_sharded(step.w)
        self.reshard()
        self._check_reduced("the loop begins")
        everyone = _parameters(self._model, step.w)
        others = _others(everyone, step.w)
        # A hook may put every gradient into the same memory.
        self._reused = self._views or any(map(_is_hooked, everyone))
        before = self._held(everyone) if accumulate else []
        log = Log(step.w, track=self._track)
        view = GradientView(step, scaler)
        ask, descend, rewound, alone = next(program), None, False, False
        aside: Gradients = []
        try:
            if self._check is not None:
                yield from self._rehearse(self._check, ask, step, everyone)
            while descend is None:
                # Other optimizers descend what belongs to the whole loss.
                partial = ask.along is not None or ask.part == "rest"
                aside = self._held(others) if partial else []
                _write(everyone, [None] * len(everyone))
                rewound = log.passes > 0 or self._check is not None
                for replay in self._replays:
                    if rewound:
                        replay.rewind()
                    else:
                        replay.begin(everyone, _movable(step, ask))
                log.begin(ask.at)
                if ask.at is not None:
                    self._move(step, ask.at)
                at = type(ask.at)
                # Let go of eps: the pass needs the memory.
                ask = ask.there()
                probe = Probe(log.passes, at, ask, _pairs(step.w, ask.along))
                alone = ask.climbs or ask.alone
                with (
                    self._around(ask),
                    self._meeting(),
                    self._watched(log),
                    self._differentiable_twice(ask),
                ):
                    yield probe
                self._met_all = True
                self._return()
                if not rewound:
                    for replay in self._replays:
                        replay.keep()
                if self._check is not None and not log.passes:
                    self._check.compare(probe, step.w)
                probe.check_answer()
                if probe.losses is not None:
                    step.losses.append(probe.losses)
                log.end(ask, probe.loss)
                ask, descend = self._answer(program, ask, log, view)
            self._check_some(step.w, descend)
            _check_same_trained(step)
            if alone:
                descend = self._scope.average(self._model, step.w, descend)
            _write(step.w, view.shown(descend))
            if ask.along is not None:
                _write(others, aside)
            elif ask.part == "rest":
                _accumulate(others, aside)
            # This step uses none of the other gradients: other SAMs may clear them.
            mark_used(others)
            if accumulate:
                _accumulate(everyone, before)
        except BaseException:
            self.drop_unreduced()
            if accumulate:
                _write(everyone, before)
            raise
        finally:
            program.close()
            self._return()
            for replay in self._replays:
                if rewound:
                    replay.finish()
                else:
                    replay.stop()
        self.statistics = log.statistics()
        self.unperturbed = self.unperturbed + log.unperturbed

    def _check_reduced(self, when: str) -> None:
        """Refuse gradients that FSDP2 keeps and would add to those of a later pass."""
        if self._sharded and has_unreduced(self._model):
            raise RuntimeError(
                f"{when} with gradients that FSDP2 has not yet reduced. Call "
                "model.set_requires_gradient_sync(True) before the last backward pass "
                "of the body, for every probe. optimizer.zero_grad() drops them."
            )

    def _return(self) -> None:
        """Bring the weights back to ``w``."""
        self.reshard()
        self._weights.restore()

    # Compiled by itself, it would round differently from a loop that is not compiled.
    @untraced
    def _move(self, step: Step, at: Point | Ascent) -> None:
        """Take the weights to where a pass is asked for."""
        self._weights.move(step.w, at.eps, step.index, at.frozen)

    def _around(self, ask: Ask) -> AbstractContextManager[object]:
        """Return the context in which a pass runs."""
        if not ask.backward:
            # DistributedDataParallel would wait for the backward pass of a forward
            # pass that has a graph.
            return torch.no_grad()
        alone = ask.climbs or ask.alone
        return self._scope.alone(self._model) if alone else nullcontext()

    def _meeting(self) -> AbstractContextManager[object]:
        """Return a context that watches all modules, in the very first pass.

        Later only for a wrapper that SAM was not given: compiled code is compiled anew
        for hooks that come and go.
        """
        stack = ExitStack()
        if not self._met_all or has_wrapper(self._model):
            stack.enter_context(seen_wrapped(self._model))
        if not self._met_all and self._protects:
            stack.enter_context(nothing_outside(self._model))
        return stack

    def _watched(self, log: Log) -> AbstractContextManager[object]:
        """Return a context that notes every module's results, if this is checked."""
        watched = None if log.passes else self._check
        return nullcontext() if watched is None else watched.watch()

    def _differentiable_twice(self, ask: Ask) -> AbstractContextManager[object]:
        """Return a context that makes the Hessian of `weight_norm` right."""
        wrong = ask.along is not None and has_weight_norm(self._model)
        return weight_norm_by_hand() if wrong else nullcontext()

    def _rehearse(
        self, check: ReplayCheck, ask: Ask, step: Step, everyone: list[Tensor]
    ) -> Iterator[Probe]:
        """Run the first pass once for the check, which is undone as a first pass is."""
        check.begin()
        _write(everyone, [None] * len(everyone))
        for replay in self._replays:
            replay.begin(everyone, _movable(step, ask))
        if ask.at is not None:
            self._move(step, ask.at)
        probe = Probe(0, type(ask.at), ask.there(), _pairs(step.w, ask.along))
        with self._around(ask), check.watch():
            yield probe
        self._return()
        check.note(probe, step.w)
        for replay in self._replays:
            replay.keep()

    def _answer(
        self, program: Program, ask: Ask, log: Log, view: GradientView
    ) -> tuple[Ask, Gradients | None]:
        """Return the program's next request, or what to descend.

        A method of its own, so that no gradient outlives the call unless the program,
        or the log for the cosine, keeps it: the next pass needs the memory.
        """
        self._check_reduced("a pass of the probes() loop ended")
        g = self._held(log.w)
        _check_dense(log.w, g)
        # The product with the Hessian of a linear loss is no tensor.
        if ask.backward and ask.along is None:
            self._check_some(log.w, g)
        g = view.seen(g)
        log.keep(ask, g)
        g = self._scope.share(log.w, g) if ask.climbs else g
        try:
            return program.send(g), None
        except StopIteration as finished:
            return ask, _descent(finished.value)

    def _check_some(self, w: list[Tensor], g: Gradients) -> None:
        """Refuse a pass without any gradient, which would be taken for a zero one."""
        if any(v is not None for v in g):
            return
        mine = set(map(id, _parameters(self._model, [])))
        if mine.isdisjoint(map(id, w)):
            raise RuntimeError(
                "base and model have no parameter in common any more: the model was "
                "sharded, or its parameters replaced, after the base was built. Build "
                "base and SAM after fully_shard and after load_state_dict(assign=True)."
            )
        raise RuntimeError(
            "no parameter has a gradient after a pass of the probes() loop. Call "
            "loss.backward() in its body, for every probe."
        )

    def _held(self, ps: list[Tensor]) -> Gradients:
        """The gradients of ``ps``, in memory that the next pass does not write to."""
        if self._reused:
            return [None if p.grad is None else p.grad.clone() for p in ps]
        return [p.grad for p in ps]


def _parameters(model: nn.Module, w: list[Tensor]) -> list[Tensor]:
    """Return the parameters of the model and of the optimizer, each once.

    ``model.parameters()`` also builds their names, which takes four times as long.
    """
    found: dict[int, Tensor] = {}
    modules: list[Any] = [model]
    seen = {id(model)}
    for module in modules:
        for p in module._parameters.values():
            if p is not None:
                found[id(p)] = p
        for inside in module._modules.values():
            if inside is not None and id(inside) not in seen:
                seen.add(id(inside))
                modules.append(inside)
    return list((found | {id(p): p for p in w}).values())


def _is_hooked(p: Any) -> bool:
    return bool(p._post_accumulate_grad_hooks)


def _others(everyone: list[Tensor], w: list[Tensor]) -> list[Tensor]:
    """Return the parameters of the model that another optimizer trains, or none."""
    if len(everyone) == len(w):
        return []
    mine = set(map(id, w))
    return [p for p in everyone if id(p) not in mine]


def _movable(step: Step, ask: Ask) -> list[Tensor]:
    """Return the trained parameters, and the other tensors that the request moves."""
    return step.w if ask.at is None else [*step.w, *(p for p, _ in ask.at.frozen)]


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
    """Return what a program returned, or raise TypeError if it is no list."""
    if not isinstance(value, list):
        raise TypeError(
            "a method returns the vector to descend, a list with an entry per "
            f"parameter, got {type(value).__name__}. End it with: return (yield Ask())."
        )
    return cast("Gradients", value)


def _check_same_trained(step: Step) -> None:
    """Refuse parameters that began to train after the loop had begun."""
    w = set(map(id, step.w))
    later = [
        p
        for group in step.groups
        for p in group["params"]
        if id(p) not in w and p.requires_grad and p.grad is not None
    ]
    if later:
        raise RuntimeError(
            f"{len(later)} parameters of the base began to train within the probes() "
            "loop, and took no part in the perturbation. Call requires_grad_(True) and "
            "add_param_group() before the loop, not in its body or in forward()."
        )

"""Sources: along what do we climb, other than the gradient at ``w``?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from flatmin.core import vectors as vec
from flatmin.core._batch import Batch
from flatmin.core._checks import inside
from flatmin.core._draws import DIRECTION, seed_of
from flatmin.core._joints import Source, fresh
from flatmin.core._method import Joint, Traits, traits_of
from flatmin.core._program import Gradients, Program, Step
from flatmin.core._shards import local, share_of


@dataclass(frozen=True, slots=True)
class Given(Joint):
    """A direction that is known without a pass over the batch.

    Attributes:
        direction: a function from the step to the direction of the climb.
    """

    direction: Callable[[Step], Gradients]

    @property
    def traits(self) -> Traits:
        """No gradient at ``w`` is asked for."""
        return Traits(skips_w=True)

    def __call__(self, step: Step, batch: Batch) -> Program:
        """The direction."""
        del batch
        yield from ()
        return self.direction(step)


@dataclass(frozen=True, slots=True)
class _Friendly(Joint):
    source: Source
    sigma: float
    decay: float

    @property
    def traits(self) -> Traits:
        """A running mean of gradients is kept, so all must have the same scale."""
        own = Traits(remembers=("friend",), needs_unscaled=True)
        return traits_of(self.source) | own

    def __call__(self, step: Step, batch: Batch) -> Program:
        g = yield from self.source(step, batch)
        m, seen = step.memory.recall("friend"), vec.wide(step.mean(g))
        new = seen if m is None else vec.mix(self.decay, m, 1 - self.decay, seen)
        step.memory.keep("friend", vec.finite(step.w, new, m))
        return g if m is None else vec.mix(1.0, g, -self.sigma, m)


@dataclass(frozen=True, slots=True)
class _Smoothed(Joint):
    source: Source
    theta: float

    @property
    def traits(self) -> Traits:
        """A running mean of gradients is kept, so all must have the same scale."""
        own = Traits(remembers=("smooth",), needs_unscaled=True)
        return traits_of(self.source) | own

    def __call__(self, step: Step, batch: Batch) -> Program:
        g = yield from self.source(step, batch)
        old, mean = step.memory.recall("smooth"), step.mean(g)
        d = self._moved(old, g)
        # Replicas remember alike, though each climbs along its own.
        seen = d if mean is g else self._moved(old, mean)
        step.memory.keep("smooth", vec.finite(step.w, seen, old))
        return d

    def _moved(self, old: Gradients | None, g: Gradients) -> Gradients:
        g = vec.wide(g)
        return g if old is None else vec.mix(1 - self.theta, old, self.theta, g)


def friendly(sigma: float, decay: float, source: Source = fresh) -> Source:
    """``g - sigma m``: without the part of ``g`` that all batches share.

    ``m <- decay m + (1 - decay) g``; the first step has no ``m`` and climbs ``g``.
    """
    inside("sigma", sigma, "[0, inf)", "the paper's is 1")
    inside("decay", decay, "[0, 1)", "the authors' is 0.95")
    return _Friendly(source, sigma, decay)


def smoothed(theta: float, source: Source = fresh) -> Source:
    """``d <- (1 - theta) d + theta g``: the gradient with less noise."""
    return _Smoothed(source, inside("theta", theta, "(0, 1]", "the authors' is 0.9"))


def normal(step: Step) -> Gradients:
    """A normal vector, alike in all replicas."""
    drawn: Gradients = []
    for i, (w, here) in enumerate(zip(step.w, local(step.w), strict=True)):
        seed = seed_of(step.index, DIRECTION, i)
        draw = torch.Generator(here.device).manual_seed(seed)
        kind = w.dtype if w.is_complex() else None
        x = torch.randn(w.shape, generator=draw, device=here.device, dtype=kind)
        drawn.append(share_of(x.to(w.dtype), w))
    return drawn


def _last(step: Step) -> Gradients:
    old = step.memory.recall("stale")
    return [None] * len(step.w) if old is None else old


def _minus_momentum(step: Step) -> Gradients:
    found: Gradients = []
    for p in step.w:
        state = step.state.get(p, {})
        v = state.get("momentum_buffer", state.get("exp_avg"))
        found.append(None if v is None else -local([v])[0])
    if step.index and all(v is None for v in found):
        raise RuntimeError(
            "momentum_sam needs the momentum of the base, and after its first step its "
            "state holds neither momentum_buffer nor exp_avg. Use a base with momentum "
            "of its own, such as torch.optim.SGD(..., momentum=0.9)."
        )
    return found


#: A normal vector, alike in all replicas; no gradient is asked for.
at_random: Source = Given(normal)

#: What the step before descended; nothing in the first step.
stale: Source = Given(_last)

#: The momentum buffer of the base, negated, which points where the next steps go.
against_momentum: Source = Given(_minus_momentum)

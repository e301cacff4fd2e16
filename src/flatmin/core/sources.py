"""Sources: along what do we climb, other than the gradient at ``w``?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from flatmin.core import vectors as vec
from flatmin.core._checks import share
from flatmin.core._joints import Source, fresh
from flatmin.core._program import Batch, Gradients, Program, Step
from flatmin.core._shards import local, share_of

#: Keeps the draws of different tensors apart.
_PRIME = 1_000_003


@dataclass(frozen=True, slots=True)
class _Running:
    """A source that remembers gradients, which have to be of one scale."""

    source: Source

    @property
    def needs_unscaled(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, slots=True)
class _Friendly(_Running):
    sigma: float
    decay: float
    remembers: ClassVar = ("friend",)

    def __call__(self, step: Step, batch: Batch) -> Program:
        g = yield from self.source(step, batch)
        m, seen = step.memory.recall("friend"), step.mean(g)
        new = seen if m is None else vec.mix(self.decay, m, 1 - self.decay, seen)
        step.memory.keep("friend", vec.finite(step.w, new, m))
        return g if m is None else vec.mix(1.0, g, -self.sigma, m)


@dataclass(frozen=True, slots=True)
class _Smoothed(_Running):
    theta: float
    remembers: ClassVar = ("smooth",)

    def __call__(self, step: Step, batch: Batch) -> Program:
        g = yield from self.source(step, batch)
        old = step.memory.recall("smooth")
        d = g if old is None else vec.mix(1 - self.theta, old, self.theta, g)
        step.memory.keep("smooth", vec.finite(step.w, step.mean(d), old))
        return d


def friendly(sigma: float, decay: float, source: Source = fresh) -> Source:
    """``g - sigma m``: without the part of ``g`` that all batches share.

    ``m <- decay m + (1 - decay) g``; the first step has no ``m`` and climbs ``g``.
    """
    return _Friendly(source, sigma, share("decay", decay))


def smoothed(theta: float, source: Source = fresh) -> Source:
    """``d <- (1 - theta) d + theta g``: the gradient with less noise."""
    return _Smoothed(source, share("theta", theta))


def at_random(step: Step, batch: Batch) -> Program:
    """A normal vector, alike in all replicas; no gradient is asked for."""
    del batch
    drawn: Gradients = []
    for i, (w, here) in enumerate(zip(step.w, local(step.w), strict=True)):
        draw = torch.Generator(here.device).manual_seed(step.index * _PRIME + i)
        kind = w.dtype if w.is_complex() else None
        x = torch.randn(w.shape, generator=draw, device=here.device, dtype=kind)
        drawn.append(share_of(x.to(w.dtype), w))
    return drawn
    yield  # a program, though one without requests


def stale(step: Step, batch: Batch) -> Program:
    """What the step before descended; nothing in the first step."""
    del batch
    old = step.memory.recall("stale")
    return [None] * len(step.w) if old is None else old
    yield


def against_momentum(step: Step, batch: Batch) -> Program:
    """The base's momentum buffer, backwards: where the next steps are going."""
    del batch
    found: Gradients = []
    for p in step.w:
        state = step.state.get(p, {})
        v = state.get("momentum_buffer", state.get("exp_avg"))
        found.append(None if v is None else -local([v])[0])
    return found
    yield

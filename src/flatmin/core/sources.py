"""Sources: along what do we climb, other than the gradient at ``w``?"""

from __future__ import annotations

from functools import partial

import torch

from flatmin.core import vectors as vec
from flatmin.core._joints import Source, fresh
from flatmin.core._program import Batch, Gradients, Program, Step
from flatmin.core._shards import local

#: Keeps the draws of different tensors apart.
_PRIME = 1_000_003


def friendly(sigma: float, decay: float, source: Source = fresh) -> Source:
    """``g - sigma m``: without the part of ``g`` that all batches share.

    ``m <- decay m + (1 - decay) g``; the first step has no ``m`` and climbs ``g``.
    """
    return partial(_friendly, sigma, decay, source)


def smoothed(theta: float, source: Source = fresh) -> Source:
    """``d <- (1 - theta) d + theta g``: the gradient with less noise."""
    return partial(_smoothed, theta, source)


def _friendly(
    sigma: float, decay: float, source: Source, step: Step, batch: Batch
) -> Program:
    g = yield from source(step, batch)
    m, seen = step.memory.recall("friend"), step.mean(g)
    new = seen if m is None else vec.mix(decay, m, 1 - decay, seen)
    step.memory.keep("friend", vec.finite(step.w, new, m))
    return g if m is None else vec.mix(1.0, g, -sigma, m)


def _smoothed(theta: float, source: Source, step: Step, batch: Batch) -> Program:
    g = yield from source(step, batch)
    old = step.memory.recall("smooth")
    d = g if old is None else vec.mix(1 - theta, old, theta, g)
    step.memory.keep("smooth", vec.finite(step.w, step.mean(d), old))
    return d


def at_random(step: Step, batch: Batch) -> Program:
    """A normal vector, alike in all replicas; no gradient is asked for."""
    del batch
    drawn: Gradients = []
    for i, w in enumerate(local(step.w)):
        draw = torch.Generator(w.device).manual_seed(step.index * _PRIME + i)
        x = torch.randn(w.shape, generator=draw, device=w.device)
        drawn.append(x.to(w.dtype))
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

"""What the second pass finds in memory: the weights' copy, and nothing of the first."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from flatmin import SAM
from flatmin.core import (
    Ascent,
    LpBall,
    Method,
    Metric,
    PerGroup,
    PerLayer,
    Program,
    Scale,
    Step,
    TwoPoint,
    combine,
    scales,
)
from tests.problems import Scripted, batch, loss_of, mlp

DATA = batch(torch.float64)


#: Every tensor that the first pass has made.
Seen = list[weakref.ref[Tensor]]


@dataclass(frozen=True)
class Watched(Metric):
    """A metric that notes which tensors it was given and has returned."""

    metric: Metric
    seen: Seen = field(default_factory=Seen)

    def __call__(
        self, w: list[Tensor], g: list[Tensor], rho: list[float], group: list[int]
    ) -> Ascent:
        ascent = self.metric(w, g, rho, group)
        note(self.seen, g)
        note(self.seen, ascent.eps)
        return ascent


def note(seen: Seen, tensors: Sequence[Tensor | None]) -> None:
    seen.extend(weakref.ref(t) for t in tensors if t is not None)


def watched(method: Method, seen: Seen) -> Method:
    """The method; notes what it is sent and where it wants to be."""

    def program(step: Step) -> Program:
        inner = method(step)
        asked = [next(inner)]
        while True:
            note(seen, asked[0].at.eps if asked[0].at else ())
            # No name may keep what the method lets go of.
            sent = [(yield asked.pop())]
            note(seen, sent[0])
            try:
                asked = [inner.send(sent.pop())]
            except StopIteration as finished:
                return finished.value

    return Scripted(program)


@contextmanager
def no_collector() -> Iterator[None]:
    """Memory that only the collector would free counts as taken."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive_in_the_second_pass(method: Method, seen: Seen) -> int:
    model = mlp()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, rho=0.1, method=watched(method, seen))
    counts: list[int] = []
    with no_collector():
        for probe in optimizer.probes():
            if probe.perturbed:
                assert len(seen) == 4 * len(list(model.parameters()))
                counts.append(sum(ref() is not None for ref in seen))
            loss_of(model, DATA).backward()
    [count] = counts
    return count


METRICS = [LpBall(), LpBall(1.5), PerLayer(LpBall()), PerGroup(LpBall())]


@pytest.mark.parametrize("scale", [TwoPoint().scale, scales.Adaptive(0.01)])
@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_neither_gradient_nor_perturbation_outlives_the_first_pass(
    metric: Metric, scale: Scale
) -> None:
    inside = Watched(metric)
    method = TwoPoint(metric=inside, scale=scale)
    assert alive_in_the_second_pass(method, inside.seen) == 0


def test_a_method_that_needs_the_first_gradient_has_it_alone() -> None:
    inside = Watched(LpBall())
    method = TwoPoint(metric=inside, combine=combine.Mixed(0.5, 0.5))
    # Four gradients, noted when they were sent and when they were climbed.
    assert alive_in_the_second_pass(method, inside.seen) == 8

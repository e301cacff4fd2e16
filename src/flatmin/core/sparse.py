"""A perturbation of the weights alone that matter most by their Fisher information."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from flatmin.core import _checks as checks
from flatmin.core._joints import of_group
from flatmin.core._method import Method, Traits
from flatmin.core._multiple import entries, pick, scaled, spread
from flatmin.core._program import Ascent, Ask, Entries, Gradients, Program, Step
from flatmin.core._ranking import highest
from flatmin.core._shards import any_sharded
from flatmin.core._two_point import Climb


@dataclass(frozen=True, slots=True)
class FisherMasked(Method):
    """SSAM-F: ``rho g / ||g||``, kept where the Fisher information is highest.

    The information is the sum of the squared gradients of single examples of the
    batch, computed anew every ``every`` steps.

    Attributes:
        share: of the weights that move.
        every: how many steps a mask lasts.
        samples: how many gradients the sum has.
        m: how many examples each of these gradients is of.
    """

    share: float
    every: int
    samples: int
    m: int = 1

    def __post_init__(self) -> None:
        checks.inside("share", self.share, "(0, 1]", "the authors' is 0.5")
        checks.integer("every", self.every, 1, "the authors' is the steps of an epoch")
        checks.integer("samples", self.samples, 1, "the authors' for CIFAR is 16")
        checks.integer("m", self.m, 1, "the authors' is 1")

    @property
    def traits(self) -> Traits:
        """A mask lasts for several steps, and is made of single examples."""
        return Traits(remembers=("mask",), needs_take=True)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        if any_sharded(step.w):
            raise ValueError(
                "sparse SAM needs the gradients of single examples. With sharded "
                "parameters (DTensor) a gradient is the mean over all processes. Use "
                "DistributedDataParallel, or flatmin.SAM."
            )
        rho, mask = of_group(step), step.memory.recall("mask")
        # The whole batch comes first, because buffers keep the first pass's update.
        g = yield Ask(climbs=True)
        if mask is None or step.index % self.every == 0:
            fisher = yield from self._fisher(step)
            mask = highest(step, step.mean(fisher), self.share)
            # Of micro-batches the first: it has the examples that come first.
            if step.memory.of_this_step("mask") is None:
                step.memory.keep("mask", mask)
        return (yield Ask(_masked(Climb.climb(step, g, rho), mask)))

    def _fisher(self, step: Step) -> Generator[Ask, Gradients, Gradients]:
        """The sum of squared gradients."""
        total: Gradients = [None] * len(step.w)
        for k in range(self.samples):
            g = yield Ask(batch=partial(_kth, k, self.m), alone=True)
            total = [_plus_square(f, g_i) for f, g_i in zip(total, g, strict=True)]
        return total


def _kth(k: int, m: int, n: int) -> slice:
    """Select the k-th run of m of n examples, from the front again at the end."""
    first = k * m % max(n - m + 1, 1)
    return slice(first, first + m)


def _plus_square(f: Tensor | None, g: Tensor | None) -> Tensor | None:
    if g is None:
        return f
    square = (g * g.conj()).real if g.is_complex() else g * g
    return square if f is None else f + square


def _masked(ascent: Ascent | None, mask: Entries) -> Ascent | None:
    if ascent is None:
        return None
    both = zip(entries(ascent.eps), mask, strict=True)
    at = [i for i, (e, m) in enumerate(both) if e is not None and m is not None]
    ones = [m for m in pick(mask, at) if m is not None]
    eps = scaled(pick(ascent.eps, at), ones)
    return ascent._replace(eps=spread(eps, at, len(mask)))

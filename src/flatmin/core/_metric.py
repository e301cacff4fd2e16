"""The metric joint: the ball the perturbation lives in, and its highest point."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flatmin.core import _tensors as ts
from flatmin.core._checks import inside, number
from flatmin.core._method import Joint, Traits
from flatmin.core._multiple import Entries, Multiple
from flatmin.core._program import Ascent
from flatmin.core._shards import Shards, local, local_as


class Metric(Joint, ABC):
    """Maps weights and gradient to ``eps = argmax <eps, g>`` over the ball."""

    __slots__ = ()

    @abstractmethod
    def __call__(
        self, w: list[Tensor], g: list[Tensor], rho: list[float], group: list[int]
    ) -> Ascent:
        """Return the perturbation, with an entry for each tensor that moves.

        Args:
            w: the tensors that move.
            g: their gradients, no entry missing or empty.
            rho: the radius for each tensor, at least one of them positive.
            group: the parameter group each tensor belongs to.
        """
        ...


@dataclass(frozen=True, slots=True)
class LpBall(Metric):
    r"""The l_p ball of radius rho around all weights together (eq. 2 of the paper).

    .. math::
        \epsilon = \rho \, \mathrm{sign}(g) \, |g|^{q-1}
                   \big/ \big(\|g\|_q^q\big)^{1/p}, \qquad 1/p + 1/q = 1

    It is the maximiser of ``<eps, g>`` over ``||eps||_p <= rho``: ``||eps||_p = rho``
    and ``<eps, g> = rho ||g||_q``. ``p = 2`` gives ``rho g / ||g||``; ``p = inf``
    gives ``rho sign(g)``; ``p = 1`` puts all of rho on the entries where ``|g|`` is
    largest, in equal parts if there are several, which is the limit of the formula.

    For sharded parameters (DTensor), ``eps`` is this process's part, and the norm is
    that of the whole.

    Where tensors have radii of their own, the direction is that of the common ball and
    each tensor is scaled by its radius. A gradient that is zero, not finite, or too
    small for ``rho / ||g||`` to be represented gives ``eps = 0``.

    Differs from the paper: the gradient is divided by its largest entry before any
    power is taken, which only widens the range of numbers that the formula works for.

    Args:
        p: from 1 to ``math.inf``; 2 is the paper's choice.

    Raises:
        TypeError: ``p`` is not a number.
        ValueError: ``p`` is less than 1 or NaN.

    Example:
        >>> import torch
        >>> from flatmin.core import LpBall
        >>> g = [torch.tensor([3.0, -4.0])]
        >>> [*LpBall(2)(w=g, g=g, rho=[0.5], group=[0]).eps]
        [tensor([ 0.3000, -0.4000])]

    Reference: Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for
    Efficiently Improving Generalization. ICLR 2021, arXiv:2010.01412.
    """

    p: float = 2.0

    def __post_init__(self) -> None:
        if not number("p", self.p) >= 1:
            raise ValueError(f"p must be in [1, inf], got p={self.p}; SAM's is 2.")

    @property
    def q(self) -> float:
        """The dual exponent, ``1/p + 1/q = 1``."""
        if self.p == 1:
            return math.inf
        return 1.0 if self.p == math.inf else self.p / (self.p - 1)

    def __call__(
        self, w: list[Tensor], g: list[Tensor], rho: list[float], group: list[int]
    ) -> Ascent:
        """The perturbation of eq. 2."""
        del group
        shards = Shards.of(w)
        g = ts.wide(local_as(g, w))
        solve = self._euclidean if self.p == 2 else self._general
        x, size, norm = solve(g, shards)
        r = max(rho)
        scale = r / size
        dtypes = dict.fromkeys(t.dtype for t in ts.real(x))
        narrow = min(dtypes, key=lambda dtype: dtype.itemsize)
        ok = (norm > 0) & norm.isfinite() & scale.to(narrow).isfinite()
        return Ascent(_at_radii(Multiple(x, scale, ok), rho), norm, ok)

    def _euclidean(
        self, g: list[Tensor], shards: Shards
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        norm = shards.norm(g)
        return g, norm, norm

    def _general(
        self, g: list[Tensor], shards: Shards
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """``sign(g) h^(q-1)``, its l_p norm, ``||g||_q``; ``h = |g| / max|g|``."""
        q, s = self.q, shards.largest(g)
        unit = torch.where(s == 0, 1, s)
        h_q = shards.power_total(g, unit, q)
        r = math.inf if q == math.inf else q - 1
        return ts.signed_power(g, unit, r), h_q ** (1 / self.p), s * h_q ** (1 / q)


@dataclass(frozen=True, slots=True)
class PerGroup(Metric):
    """One ball per parameter group, each of its group's radius.

    Args:
        ball: the metric within a group.
    """

    ball: Metric

    @property
    def traits(self) -> Traits:
        """Those of the ball."""
        return self.ball.traits

    def __call__(
        self, w: list[Tensor], g: list[Tensor], rho: list[float], group: list[int]
    ) -> Ascent:
        """Perturb every group by itself; if the norm of one overflows, perturb none."""
        eps: list[Tensor | None] = [None] * len(g)
        parts: list[Ascent] = []
        for k in sorted(set(group)):
            at = [i for i, other in enumerate(group) if other == k and rho[i] > 0]
            if not at:
                continue
            part = self.ball(
                [w[i] for i in at],
                [g[i] for i in at],
                [rho[i] for i in at],
                [k] * len(at),
            )
            for i, e in zip(at, part.eps, strict=True):
                eps[i] = e
            parts.append(part)
        norms = torch.stack([part.norm.to(parts[0].norm.device) for part in parts])
        ts.zero_unless_([e for e in eps if e is not None], norms.isfinite().all())
        ok = torch.stack([part.ok.to(norms.device) for part in parts]).any()
        return Ascent(tuple(eps), norms, ok & norms.isfinite().all())


@dataclass(frozen=True, slots=True)
class PerLayer(Metric):
    """A ball for each parameter, of radius ``rho ||w||``.

    Attributes:
        ball: the metric within a parameter.
    """

    ball: Metric

    @property
    def traits(self) -> Traits:
        """Those of the ball."""
        return self.ball.traits

    def __call__(
        self, w: list[Tensor], g: list[Tensor], rho: list[float], group: list[int]
    ) -> Ascent:
        """Perturb every parameter by itself."""
        each = PerGroup(self.ball)(w, g, rho, list(range(len(w))))
        sizes = [Shards.of([p]).norm(ts.wide(local([p.detach()]))) for p in w]
        pairs = zip(each.eps, sizes, strict=True)
        eps = tuple(None if e is None else e * size.to(e.dtype) for e, size in pairs)
        return each._replace(eps=eps)


@dataclass(frozen=True, slots=True)
class Unnormalised(Metric):
    """``rho g``: no ball; the steeper the loss, the longer the perturbation."""

    @property
    def traits(self) -> Traits:
        """Gradients must be unscaled, because ``eps`` is proportional to them."""
        return Traits(needs_unscaled=True)

    def __call__(
        self, w: list[Tensor], g: list[Tensor], rho: list[float], group: list[int]
    ) -> Ascent:
        """``rho g``."""
        del group
        g = ts.wide(local_as(g, w))
        norm = Shards.of(w).norm(g)
        ok = (norm > 0) & norm.isfinite()
        eps = Multiple(g, torch.full_like(norm, max(rho)), ok)
        return Ascent(_at_radii(eps, rho), norm, ok)


@dataclass(frozen=True, slots=True)
class Shortened(Metric):
    """``rho g / ||g|| - alpha g``.

    Attributes:
        alpha: how much of the gradient is subtracted.
    """

    alpha: float

    def __post_init__(self) -> None:
        inside("alpha", self.alpha, "[0, inf)", "the authors' is 0.001")

    @property
    def traits(self) -> Traits:
        """Gradients must be unscaled, because what is subtracted grows with them."""
        return Traits(needs_unscaled=True)

    def __call__(
        self, w: list[Tensor], g: list[Tensor], rho: list[float], group: list[int]
    ) -> Ascent:
        """The perturbation."""
        ball = LpBall()(w, g, rho, group)
        if isinstance(ball.eps, Multiple):
            return ball._replace(eps=replace(ball.eps, c=ball.eps.c - self.alpha))
        less = Unnormalised()(w, g, [self.alpha if r else 0.0 for r in rho], group)
        pairs = zip(ball.eps, less.eps, strict=True)
        eps = tuple(None if a is None or b is None else a - b for a, b in pairs)
        return ball._replace(eps=eps)


def _at_radii(eps: Multiple, rho: list[float]) -> Entries:
    """Scale a perturbation of the largest radius to the radius of each tensor."""
    if min(rho) == max(rho):
        return eps
    moves = [e for e in eps if e is not None]
    ts.times_each_(moves, [one / max(rho) for one in rho])
    return tuple(moves)

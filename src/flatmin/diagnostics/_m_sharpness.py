"""How much the loss of a few examples rises around the weights, group by group."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from flatmin.core import Step, TwoPoint
from flatmin.core import _tensors as ts
from flatmin.core._checks import integer, radius
from flatmin.diagnostics import _trees as trees
from flatmin.diagnostics._ball import ball_of, climb, described, step_of
from flatmin.diagnostics._criterion import BatchLoss
from flatmin.diagnostics._functional import Loss, names, reads
from flatmin.diagnostics._objective import Objective
from flatmin.diagnostics._record import GroupMean
from flatmin.diagnostics.sharpness import finite

#: Larger groups keep a processor busy by themselves.
_VMAP_UP_TO = 8

#: How many perturbed weights may be in memory at once.
_ENTRIES = 2**24

#: The rise of a group, and what the mean of its losses divides by: float64, 0-dim.
Rise: TypeAlias = tuple[Tensor, Tensor]


def m_sharpness(
    objective: Objective,
    rho: float = 0.05,
    m: int = 1,
    *,
    p: float = 2.0,
    within: TwoPoint | None = None,
) -> GroupMean:
    r"""The mean sharpness of groups of m examples, each with an ``eps`` of its own.

    .. math::
        \frac{1}{\sum_k c_k} \sum_k c_k \big( L_k(w + \hat\epsilon_k) - L_k(w) \big),
        \qquad \hat\epsilon_k \text{ from } \nabla L_k(w)

    ``L_k`` is the mean loss of the k-th group and ``c_k`` what it divides by, so that
    the mean of the ``L_k`` is ``L``: groups count alike unless targets are ignored or
    classes weighted. A group in which everything is ignored has weight 0. The mean is
    what SAM minimizes when its perturbation is that of m examples (section 4.1 of the
    paper). It grows as m falls, and at m = n it is `sharpness`. Takes one gradient and
    one loss per example.

    Groups are m consecutive examples of a batch, so m has to divide the size of every
    batch but the last of each process, whose rest is left out. To cut a batch, every
    tensor in it with as many entries as examples along its first axis is cut; batches
    of other kinds work with m as the batch size.

    Small groups are computed many at a time (torch.func) where the model allows it,
    and one by one where not; the numbers are the same.

    Args:
        objective: the loss.
        rho: the radius.
        m: examples per group.
        p: which norm bounds the perturbation, from 1 to ``math.inf``.
        within: whose scale, metric and filter say what the ball is, in place of ``p``.

    Returns:
        The mean over groups with its standard error, None for one group alone;
        ``groups`` counts those in which something counts, ``n`` the examples in them.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, m does not divide a batch, a batch
            cannot be cut, or gradient or loss are not finite.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Objective, m_sharpness
        >>> model = torch.nn.Linear(1, 1, bias=False).double()
        >>> _ = torch.nn.init.constant_(model.weight, 2.0)
        >>> x = torch.tensor([[1.0], [-1.0]]).double()
        >>> data = [(x, torch.zeros(2, 1).double())]
        >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
        >>> m_sharpness(objective, rho=0.5, m=1)
        m-sharpness 2.25 ± 0 (rho 0.5, p 2, m 1, 2 groups, one step each; n = 2)

    Reference: Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for
    Efficiently Improving Generalization. ICLR 2021, arXiv:2010.01412, section 4.1.
    """
    rho, within = radius(rho), ball_of(p, within)
    integer("m", m, 1)
    with objective.reading():
        rises = _Groups(objective, within, rho, m).rises()
    groups, mean, error = _statistics(objective, rises, m)
    return GroupMean(
        name="m-sharpness",
        value=mean,
        error=error,
        n=groups * m,
        settings={**described(rho, within), "m": m},
        how=f"{groups} groups, one step each",
        groups=groups,
    )


class _Groups:
    """The groups of this process."""

    def __init__(
        self, objective: Objective, within: TwoPoint, rho: float, m: int
    ) -> None:
        self.objective = objective
        self.within = within
        self.rho = rho
        self.m = m
        self.step: Step = step_of(objective, rho)
        self.many = m <= _VMAP_UP_TO

    def rises(self) -> list[Rise]:
        """``L_k(w + eps_k) - L_k(w)`` of every group, and its weight."""
        self._check()
        found: list[Rise] = []
        for batch, size in zip(
            self.objective.batches(), self.objective.sizes, strict=True
        ):
            parts = _Cut.of(batch, size, self.m)
            found += self._together(parts) if self.many else self._one_by_one(parts)
        return found

    def _check(self) -> None:
        for size in self.objective.sizes[:-1]:
            if size % self.m:
                raise ValueError(
                    f"m = {self.m} does not divide the batch size {size}: groups are "
                    "cut within batches. Give batches of a multiple of m examples."
                )

    def _one_by_one(self, parts: _Cut) -> list[Rise]:
        return [self._rise(parts.group(k)) for k in range(parts.count)]

    def _rise(self, group: Any) -> Rise:
        loss, g = self.objective.gradient_of(group)
        _check_size(loss.examples, self.m)
        if loss.divisor == 0:
            return torch.zeros_like(loss.total), loss.divisor
        g = ts.times(g, 1 / loss.divisor)
        eps = climb(self.within, self.step, g, self.rho)
        with self.objective.at(eps), torch.no_grad():
            top = self.objective.loss_of(group).mean
        return _checked(top, loss.mean, self.rho), loss.divisor

    def _together(self, parts: _Cut) -> list[Rise]:
        """Many groups at once; one by one for a model that cannot do that."""
        numel = sum(p.numel() for p in self.objective.w)
        chunk = max(1, _ENTRIES // numel)
        found: list[Rise] = []
        for start in range(0, parts.count, chunk):
            at = slice(start, min(start + chunk, parts.count))
            try:
                with warnings.catch_warnings():
                    # vmap's fallback, a loop over single operators, is no gain.
                    warnings.filterwarnings("error", "There is a performance drop")
                    found += self._chunk(parts, at)
            except Exception:
                # Any error of vmap's; an error of the model is raised again.
                self.many = False
                return self._one_by_one(parts)
        return found

    def _chunk(self, parts: _Cut, at: slice) -> list[Rise]:
        """The rises of groups at once: gradients, perturbations, losses."""
        loss = _Functional(self.objective, parts)
        w = tuple(p.detach() for p in self.objective.w)
        leaves, axes = parts.chunk(at), parts.axes
        slope = grad_and_value(loss, has_aux=True)
        with torch.enable_grad():
            g, (below, counts) = vmap(slope, in_dims=(None, *axes))(w, *leaves)
        self._check_replaced(below)
        g = [x.detach() for x in g]
        eps = [
            climb(self.within, self.step, [g_i[k] for g_i in g], self.rho)
            for k in range(len(below))
        ]
        moved = tuple(
            torch.stack([_moved(p, e[i]) for e in eps]) for i, p in enumerate(w)
        )
        with torch.enable_grad():
            above, _ = vmap(loss, in_dims=(0, *axes))(moved, *leaves)
        self._check_replaced(above)
        three = zip(above.detach(), below.detach(), counts, strict=True)
        return [(_checked(a, b, self.rho), count) for a, b, count in three]

    def _check_replaced(self, losses: Tensor) -> None:
        """Refuse a model that reads its weights from elsewhere than attributes.

        Raises:
            TypeError: it does, with this batch.
        """
        # Inference mode keeps no graph to look at.
        if torch.is_inference_mode_enabled() or reads(losses, self.objective.w):
            raise TypeError("the model reads weights that vmap cannot replace.")


@dataclass(frozen=True, slots=True)
class _Cut:
    """A batch in groups of m examples."""

    leaves: list[Any]
    axes: tuple[int | None, ...]
    shape: trees.Shape
    m: int
    count: int

    @classmethod
    def of(cls, batch: Any, size: int, m: int) -> _Cut:
        leaves, shape = trees.flatten(trees.detached(batch))
        axes = tuple(0 if _per_example(x, size) else None for x in leaves)
        count = size // m
        return cls(leaves, axes, shape, m, count)

    def group(self, k: int) -> Any:
        """The k-th group, as a batch."""
        at = slice(k * self.m, (k + 1) * self.m)
        pairs = zip(self.leaves, self.axes, strict=True)
        leaves = [x if axis is None else x[at] for x, axis in pairs]
        return trees.unflatten(leaves, self.shape)

    def chunk(self, at: slice) -> list[Any]:
        """Leaves of some groups, with an axis of groups before that of examples."""
        examples = slice(at.start * self.m, at.stop * self.m)
        return [
            x if axis is None else x[examples].unflatten(0, (-1, self.m))
            for x, axis in zip(self.leaves, self.axes, strict=True)
        ]


class _Functional:
    """Mean loss and divisor of a group, as a function of weights and batch leaves."""

    def __init__(self, objective: Objective, parts: _Cut) -> None:
        self._parts = parts
        self._loss = Loss(objective)
        self._names = names(self._loss, objective.w)

    def __call__(self, w: Sequence[Tensor], *leaves: Any) -> Rise:
        named = dict(zip(self._names, w, strict=True))
        batch = trees.unflatten(leaves, self._parts.shape)
        loss: BatchLoss = functional_call(self._loss, named, (batch,))
        _check_size(loss.examples, self._parts.m)
        return loss.mean, loss.divisor


def _moved(p: Tensor, e: Tensor | None) -> Tensor:
    return p if e is None else p + e


def _check_size(size: int, m: int) -> None:
    if size != m:
        raise ValueError(
            f"a group of m = {m} examples gives {size} targets: its batch holds "
            "something that cannot be cut. Give batches of m examples."
        )


def _per_example(x: Any, size: int) -> bool:
    return isinstance(x, Tensor) and x.dim() > 0 and len(x) == size


def _checked(above: Tensor, below: Tensor, rho: float) -> Tensor:
    """The rise from ``below``, at the weights, to ``above``, at ``w + eps``.

    Raises:
        ValueError: one of them is not finite.
    """
    if not below.isfinite():
        raise ValueError(
            f"the loss of a group is {float(below)} at the weights themselves, though "
            "that of its batch is finite. If the group's targets are all ignored, let "
            "the criterion return one loss per example, or their sum and the number it "
            "is divided by."
        )
    return finite(above, rho) - below


def _statistics(
    objective: Objective, rises: Sequence[Rise], m: int
) -> tuple[int, float, float | None]:
    """How many groups count in all processes, their mean and its standard error."""
    nothing = torch.zeros(0, 2, dtype=torch.float64, device=objective.device)
    here = torch.stack([torch.stack(rise) for rise in rises]) if rises else nothing
    rise, weight = here.unbind(1)
    groups, counted, whole = objective.sum(
        torch.stack([torch.ones_like(weight), weight != 0, weight]).sum(1)
    )
    _check_groups(int(groups), int(counted), m)
    mean = objective.sum(weight @ rise) / whole
    squares = objective.sum((weight * (rise - mean)).square().sum())
    if counted == 1:
        return 1, float(mean), None
    # With equal weights the variance over the number of groups.
    variance = squares / whole.square() * counted / (counted - 1)
    return int(counted), float(mean), math.sqrt(float(variance))


def _check_groups(groups: int, counted: int, m: int) -> None:
    if groups == 0:
        raise ValueError("no batch has m examples. Give a smaller m or larger batches.")
    if counted == 0:
        raise ValueError(
            f"in each of the {groups} groups of m = {m} examples every target is "
            "ignored. Give more data."
        )

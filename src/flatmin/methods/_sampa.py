"""A method of one file: the program of a step, and the function that builds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from flatmin.core import Ask, Gradients, Method, Point, Program, Step, Traits, of_group
from flatmin.core import _checks as checks
from flatmin.core import vectors as vec
from flatmin.core._two_point import Climb
from flatmin.optim import SAM, Options
from flatmin.optim._foreign import explained


@dataclass(frozen=True, slots=True)
class Ahead(Method):
    """``(1 - lambda) g_eps + lambda g_y``; neither gradient needs the other.

    With the ``g_y`` of the step before, ``g_eps`` is at ``w + rho g_y / ||g_y||`` and
    the new ``g_y`` at ``y = w - lr g_y``. In the first step both are at ``w``.

    Attributes:
        weight: lambda.
    """

    weight: float

    def __post_init__(self) -> None:
        checks.inside("weight", self.weight, "[0, 1]", "the authors' is 0.2")

    @property
    def traits(self) -> Traits:
        """A gradient of a whole batch is kept, and its size counts."""
        return Traits(
            remembers=("ahead",), needs_unscaled=True, adds_up=False, skips_w=True
        )

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        old = step.memory.recall("ahead")
        # Before the first gradient there is nowhere to go: both passes are at w.
        g_y: Gradients = [None] * len(step.w) if old is None else old
        g_eps = yield Ask(Climb.climb(step, g_y, of_group(step)))
        g_y = yield Ask(_descended(step, g_y))
        step.memory.drop("ahead")
        step.memory.keep("ahead", vec.finite(step.w, g_y, old))
        return vec.mix(1 - self.weight, g_eps, self.weight, g_y)


def _descended(step: Step, g: Gradients) -> Point | None:
    """``w - lr g``; ``w`` itself where there is no gradient."""
    rates = step.per_parameter([-float(group["lr"]) for group in step.groups])
    away = Point(tuple(vec.times_each(rates, g)))
    return None if all(e is None for e in away.eps) else away


@explained
def sampa(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.1,
    weight: float = 0.2,
    **options: Unpack[Options],
) -> SAM:
    r"""SAMPa: climb along a gradient taken one descent step ahead.

    .. math::
        \hat\epsilon_t = \rho \, g_t / \|g_t\|_2, \qquad
        y_{t+1} = w_t - \eta g_t, \qquad g_{t+1} = \nabla L(y_{t+1})

    and the base descends :math:`(1 - \lambda) \nabla L(w_t + \hat\epsilon_t) + \lambda
    g_{t+1}`. Neither of the two gradients needs the other, so that two devices could
    compute them at the same time. Here one computes them in turn, at SAM's price: the
    method can be studied, but it saves no time.

    In the paper :math:`\nabla L(w_t + \hat\epsilon_t)` is of the batch before, the one
    whose gradient :math:`g_t` is. A loop that keeps this batch does the same::

        for probe in optimizer.probes():
            x, y = batch if probe.index else before
            criterion(model(x), y).backward()
        optimizer.step()
        before = batch

    with ``before = batch`` in the first step. A loop that uses one batch per step
    climbs along the gradient of the batch before, not of the one that it descends.

    No pass is at ``w``, and running statistics are those at :math:`w + \hat\epsilon`.
    With several replicas all climb together. Under a GradScaler it needs
    ``probes(scaler=scaler)``.

    Differs from the paper: in the first step both gradients are at w, as in the
    authors' code. Their code moves y by a step of SGD with momentum and weight decay;
    here, as in the paper's algorithm, it is :math:`\eta` times the gradient, whatever
    the base. Around another base than plain SGD, y is not where the base would go.

    Args:
        base: a built optimizer, with a learning rate.
        model: the module that the loop runs.
        rho: the radius; 0.1 and weight 0.2 are the defaults of the authors' code.
        weight: :math:`\lambda`, of the gradient ahead.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Xie, Pethick, Cevher. SAMPa: Sharpness-Aware Minimization Parallelized.
    NeurIPS 2024, arXiv:2410.10683.
    """
    return SAM(base, model, rho=rho, method=Ahead(weight), **options)

"""Methods that climb in some steps, or on some examples: less than two gradients."""

from __future__ import annotations

import math
from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from flatmin.core import TwoPoint, fraction, gates, radii
from flatmin.core._checks import inside
from flatmin.core.programs import Alternating, Look, Steep
from flatmin.optim import SAM, Options
from flatmin.optim._foreign import explained


@explained
def interval_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    k: int = 10,
    **options: Unpack[Options],
) -> SAM:
    r"""Run SAM every k-th step with k times the radius, the base optimizer between.

    .. math::
        \hat\epsilon = k \rho \, g / \|g\|_2 \text{ in steps } 0, k, 2k, \dots

    ``k=1`` is SAM. ``"sam_rho"`` in ``param_groups`` is rho, but k rho is used: the
    method's ``repr`` has ``radius=times(k)``.

    Differs from Composer: the first step climbs and not the k-th; Composer takes rho
    as given, and its README multiplies it by the interval as we do.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius that SAM has in every step, used k times as large; 0.05 is
            SAM's.
        k: the interval; 10 is that of the experiments in Composer's README. Composer's
            default is 1.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: MosaicML Composer, "Sharpness Aware Minimization", ``interval``.
    """
    method = TwoPoint(gate=gates.every(k), radius=radii.times(k))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def late_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    steps: int,
    rho: float = 0.05,
    share: float = 0.125,
    **options: Unpack[Options],
) -> SAM:
    """Run the base optimizer, and SAM in the last part of the training.

    ``share=1`` is SAM. The learning rate must not be small by then. To choose the part
    by the sum of learning rates, use `flatmin.core.gates.last_mass`.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        steps: of the whole training.
        rho: the radius; 0.05 is SAM's.
        share: of the steps, above 0; an eighth was close to SAM throughout in the
            paper.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Zhou, Wang, Mao, Li, Yan. Sharpness-Aware Minimization Efficiently
    Selects Flatter Minima Late in Training. ICLR 2025, arXiv:2410.10373.
    """
    method = TwoPoint(gate=gates.last(share, steps))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def late_subset_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    steps: int,
    rho: float = 0.05,
    late: float = 0.4,
    share: float = 0.25,
    ramp: float = 0.1,
    **options: Unpack[Options],
) -> SAM:
    r"""Run SAM late and climb with a part of the batch: about 1.1 gradients a step.

    The base optimizer runs first; then, in the last part of the training, the ascent of
    `subset_sam` with a radius that grows to :math:`\rho / \sqrt{\mathrm{share}}`. The
    loop takes the part with ``x, y = probe.take(x, y)``. ``late=1`` with ``ramp=0`` is
    `subset_sam`; ``share=1`` with ``ramp=0`` is `late_sam`.

    Let the learning rate decay in this part, as `flatmin.schedules.late_cosine` and
    `flatmin.schedules.late_linear` do. A warning says if it has decayed before: below a
    tenth of the largest rate since the start, or since the training was resumed, or of
    the schedule's ``initial_lr``.

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.late_subset_sam(base, model, steps=50)
        >>> rate = flatmin.schedules.late_cosine(50, share=0.4)
        >>> schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        >>> batch = torch.randn(32, 4), torch.randint(2, (32,))
        >>> for _ in range(50):
        ...     for probe in optimizer.probes():
        ...         x, y = probe.take(*batch)
        ...         torch.nn.functional.cross_entropy(model(x), y).backward()
        ...     optimizer.step()
        ...     schedule.step()

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        steps: of the whole training.
        rho: the radius; 0.05 is SAM's.
        late: the part of the steps that climb, above 0; 0.4 is our choice.
        share: of the batch that they climb on, above 0; a training costs
            ``1 + late share`` gradients per step. 0.25 is our choice.
        ramp: the part of the climbing steps in which the radius grows; 0.1 is our
            choice.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Zhou et al. 2025, arXiv:2410.10373, for the last part of the training.
    The ascent on a part of the batch, and the product of both, are ours.
    """
    inside("late", late, "(0, 1]", "0.4 is the default")
    inside("ramp", ramp, "[0, 1]", "0.1 is the default")
    gate, batch = gates.last(late, steps), fraction(share)
    first = gates.first_of_last(late, steps)
    growing = max(round(ramp * (steps - first)), 1)
    radius = radii.times(1 / math.sqrt(share), radii.ramp(first, growing))
    method = TwoPoint(gate=gate, batch=batch, radius=radius)
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def ss_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    probability: float = 0.5,
    **options: Unpack[Options],
) -> SAM:
    """Stochastic scheduled SAM: toss a coin between SAM and the base optimizer.

    The coin is the same in all processes and in a resumed run.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 is SAM's.
        probability: of a step of SAM, above 0; 1 is SAM. 0.5 is our choice.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Zhao, Zhang, Hu. SS-SAM: Stochastic Scheduled Sharpness-Aware
    Minimization for Efficiently Training Deep Neural Networks. 2022, arXiv:2203.09962.
    """
    method = TwoPoint(gate=gates.by_chance(probability))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def ae_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    steps: int,
    rho: float = 0.05,
    decay: float = 0.9,
    early: float = 1.0,
    late: float = -1.0,
    **options: Unpack[Options],
) -> SAM:
    r"""AE-SAM: run SAM where the gradient is large for its time, else the base.

    .. math::
        \|g\|^2 \ge \mu + c \sigma

    with running mean and variance, and c going from ``early`` to ``late``. A step that
    does not climb costs one gradient. The host waits for the norm, and replicas share
    it. Under a GradScaler it needs ``probes(scaler=scaler)``.

    Differs from the paper: the mean starts at the first squared norm instead of zero.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        steps: of the whole training.
        rho: the radius; 0.05 is SAM's.
        decay: of the running mean and variance, from 0 to just below 1; this default
            and the next two are our choice, without a source.
        early: c in the beginning.
        late: c in the end.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Jiang, Yang, Zhang, Kwok. An Adaptive Policy to Employ Sharpness-Aware
    Minimization. ICLR 2023, arXiv:2304.14647.
    """
    method = Steep(steps, decay, early, late)
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def looksam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.1,
    k: int = 5,
    alpha: float = 0.7,
    **options: Unpack[Options],
) -> SAM:
    r"""LookSAM: reuse what SAM changed in one step in the next k - 1.

    .. math::
        g + \alpha \|g\| u, \qquad u \propto g_\epsilon -
        \frac{\langle g, g_\epsilon \rangle}{\|g\|^2} g \text{ of every k-th step}

    ``k=1`` is SAM. With several replicas u is that of all, which costs one more
    all-reduce in every k-th step.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.1, k 5 and alpha 0.7 are the paper's.
        k: every k-th step is one of SAM.
        alpha: the length of the correction, relative to g, zero or greater; with 0 the
            steps between are the base optimizer's.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Liu, Mai, Chen, Hsieh, You. Towards Efficient and Scalable
    Sharpness-Aware Minimization. CVPR 2022, arXiv:2203.02714.
    """
    return SAM(base, model, rho=rho, method=Look(k, alpha), **options)


@explained
def subset_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    share: float = 0.25,
    **options: Unpack[Options],
) -> SAM:
    r"""Climb with a part of the batch, descend all of it.

    The loop takes it with ``x, y = probe.take(x, y)``: the first examples, so batches
    have to be shuffled. The radius is :math:`\rho / \sqrt{\mathrm{share}}`, because
    the gradient of fewer examples is longer, but the part of it that they have in
    common with the batch is shorter. ``share=1`` is SAM.

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.subset_sam(base, model)
        >>> batch = torch.randn(32, 4), torch.randint(2, (32,))
        >>> for probe in optimizer.probes():
        ...     x, y = probe.take(*batch)
        ...     torch.nn.functional.cross_entropy(model(x), y).backward()
        >>> optimizer.step()

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 is SAM's.
        share: of the batch, above 0; a step costs ``1 + share`` gradients. 0.25 is our
            choice.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.
    """
    batch = fraction(share)
    method = TwoPoint(batch=batch, radius=radii.times(1 / math.sqrt(share)))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def alternating_sam(
    base: Optimizer, model: nn.Module, *, rho: float = 0.05, **options: Unpack[Options]
) -> SAM:
    r"""Take two steps per batch: the base's, one at ``w + eps`` along its gradient.

    .. math::
        w_1 = \mathrm{base}(w_0, g), \qquad
        w_2 = \mathrm{base}\big(w_1, \nabla L(w_1 + \rho \, g / \|g\|)\big)

    with g at :math:`w_0`. The loop makes two steps with each batch, at one gradient per
    step. The first step of all is the base optimizer's.

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.alternating_sam(base, model)
        >>> x, y = torch.randn(32, 4), torch.randint(2, (32,))
        >>> for _ in range(2):
        ...     for probe in optimizer.probes():
        ...         torch.nn.functional.cross_entropy(model(x), y).backward()
        ...     optimizer.step()

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 is SAM's.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.
    """
    return SAM(base, model, rho=rho, method=Alternating(), **options)

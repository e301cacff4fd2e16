"""Methods that climb in some steps, or on some examples: less than two gradients."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import Optimizer

from flatmin.core import TwoPoint, fraction, gates, radii
from flatmin.core.programs import Alternating, Look, Steep
from flatmin.optim import SAM


def interval_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    k: int = 10,
    **options: Any,
) -> SAM:
    """SAM in every k-th step with k times the radius, the base optimizer in between.

    ``k=1`` is SAM. The first step climbs; Composer climbs in the k-th step first.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius of SAM in every step; k rho is used.
        k: the interval; 10 is the default of MosaicML Composer.
        options: of `flatmin.SAM`.

    Reference: MosaicML Composer, "Sharpness Aware Minimization", interval.
    """
    method = TwoPoint(gate=gates.every(k), radius=radii.times(k))
    return SAM(base, model, rho=rho, method=method, **options)


def late_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    steps: int,
    rho: float = 0.05,
    share: float = 0.125,
    **options: Any,
) -> SAM:
    """The base optimizer, and SAM in the last part of the training.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        steps: of the whole training.
        rho: the radius.
        share: of the steps; an eighth was close to SAM throughout in the paper. The
            learning rate must not be small by then.
        options: of `flatmin.SAM`.

    Reference: Zhou, Wang, Mao, Li, Yan. Sharpness-Aware Minimization Efficiently
    Selects Flatter Minima Late in Training. ICLR 2025, arXiv:2410.10373.
    """
    method = TwoPoint(gate=gates.last(share, steps))
    return SAM(base, model, rho=rho, method=method, **options)


def ss_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    probability: float = 0.5,
    **options: Any,
) -> SAM:
    """Stochastic scheduled SAM: a coin decides between SAM and the base optimizer.

    The coin is the same in all processes and in a resumed run.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius.
        probability: of a step of SAM; 1 is SAM.
        options: of `flatmin.SAM`.

    Reference: Zhao, Zhang, Hu. SS-SAM: Stochastic Scheduled Sharpness-Aware
    Minimization for Efficiently Training Deep Neural Networks. 2022, arXiv:2203.09962.
    """
    method = TwoPoint(gate=gates.by_chance(probability))
    return SAM(base, model, rho=rho, method=method, **options)


def ae_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    steps: int,
    rho: float = 0.05,
    decay: float = 0.9,
    early: float = 1.0,
    late: float = -1.0,
    **options: Any,
) -> SAM:
    r"""SAM where the gradient is large for its time, the base optimizer elsewhere.

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
        rho: the radius.
        decay: of the running mean and variance.
        early: c in the beginning.
        late: c in the end.
        options: of `flatmin.SAM`.

    Reference: Jiang, Yang, Zhang, Kwok. An Adaptive Policy to Employ Sharpness-Aware
    Minimization. ICLR 2023, arXiv:2304.14647.
    """
    method = Steep(steps, decay, early, late)
    return SAM(base, model, rho=rho, method=method, **options)


def looksam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.1,
    k: int = 5,
    alpha: float = 0.7,
    **options: Any,
) -> SAM:
    r"""LookSAM: what SAM changed in one step is used for the next k - 1.

    .. math::
        g + \alpha \|g\| u, \qquad u \propto g_\epsilon -
        \frac{\langle g, g_\epsilon \rangle}{\|g\|^2} g \text{ of every k-th step}

    ``k=1`` is SAM. With several replicas u is that of all, which costs one more
    all-reduce in every k-th step.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.1, k 5 and alpha 0.7 are the paper's.
        k: steps per step of SAM.
        alpha: the length of the correction, relative to g.
        options: of `flatmin.SAM`.

    Reference: Liu, Mai, Chen, Hsieh, You. Towards Efficient and Scalable
    Sharpness-Aware Minimization. CVPR 2022, arXiv:2203.02714.
    """
    return SAM(base, model, rho=rho, method=Look(k, alpha), **options)


def subset_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    share: float = 0.25,
    **options: Any,
) -> SAM:
    r"""SAM whose ascent sees a part of the batch that is descended.

    The loop takes it with ``x, y = probe.take(x, y)``: the first examples, so batches
    have to be shuffled. The radius is :math:`\rho / \sqrt{\mathrm{share}}`, because
    the gradient of fewer examples is longer, and shorter is the part of it that they
    have in common with the batch. ``share=1`` is SAM.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius of SAM.
        share: of the batch; a step costs ``1 + share`` gradients.
        options: of `flatmin.SAM`.
    """
    method = TwoPoint(batch=fraction(share), radius=radii.times(1 / math.sqrt(share)))
    return SAM(base, model, rho=rho, method=method, **options)


def alternating_sam(
    base: Optimizer, model: nn.Module, *, rho: float = 0.05, **options: Any
) -> SAM:
    """Two steps per batch: the base's, and one at ``w + eps`` along its gradient.

    The loop makes two steps with each batch, at one gradient per step.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius.
        options: of `flatmin.SAM`.
    """
    return SAM(base, model, rho=rho, method=Alternating(), **options)

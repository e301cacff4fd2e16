"""Methods that climb along something other than the gradient."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from flatmin.core import TwoPoint, filters, sources
from flatmin.core.combine import Centred, Remembered
from flatmin.optim import SAM


def friendly_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.1,
    sigma: float = 1.0,
    decay: float = 0.95,
    **options: Any,
) -> SAM:
    r"""Friendly SAM: climbs along what is the batch's own.

    .. math::
        \hat\epsilon = \rho \, d / \|d\|_2, \qquad d = g - \sigma m, \qquad
        m \leftarrow \beta m + (1 - \beta) g

    The first step has no m and is SAM's. With several replicas m is that of all, which
    costs one more all-reduce. Under a GradScaler it needs ``probes(scaler=scaler)``.
    ``sigma=0`` is SAM.

    Differs from the paper: m is updated after the direction is taken, as in the
    authors' code; with sigma 1 the direction is the same.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.1 is the default of the authors' code, like the next two.
        sigma: how much of the common part is taken off.
        decay: of m, beta.
        options: of `flatmin.SAM`.

    Reference: Li, Zhou, He, Cheng, Huang. Friendly Sharpness-Aware Minimization.
    CVPR 2024, arXiv:2403.12350.
    """
    method = TwoPoint(source=sources.friendly(sigma, decay))
    return SAM(base, model, rho=rho, method=method, **options)


def vasso(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    theta: float = 0.9,
    **options: Any,
) -> SAM:
    r"""Variance-suppressed SAM: climbs along a running mean of gradients.

    .. math::
        \hat\epsilon = \rho \, d / \|d\|_2, \qquad
        d \leftarrow (1 - \theta) d + \theta g

    With several replicas d is that of all, which costs one more all-reduce. Under a
    GradScaler it needs ``probes(scaler=scaler)``. ``theta=1`` is SAM.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 is the default of the authors' code.
        theta: the weight of the new gradient; 0.9 in the authors' code.
        options: of `flatmin.SAM`.

    Reference: Li, Giannakis. Enhancing Sharpness-Aware Optimization Through Variance
    Suppression. NeurIPS 2023, arXiv:2309.15639.
    """
    method = TwoPoint(source=sources.smoothed(theta))
    return SAM(base, model, rho=rho, method=method, **options)


def gcsam(
    base: Optimizer, model: nn.Module, *, rho: float = 0.05, **options: Any
) -> SAM:
    """SAM with centred gradients, in the ascent and in the descent.

    From the gradient of each weight vector (all axes but the first) its mean is taken.
    A vector of one entry has then no gradient at all: a layer with one input, or a
    depthwise convolution of 1 x 1.

    Differs from the paper: the authors' script takes the norm before centring, and
    leaves the second gradient as it is; here the perturbation has length rho.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius.
        options: of `flatmin.SAM`.

    Reference: Hassan et al. GCSAM: Gradient Centralized Sharpness Aware Minimization.
    2025, arXiv:2501.11584.
    """
    method = TwoPoint(filter=filters.centred, combine=Centred())
    return SAM(base, model, rho=rho, method=method, **options)


def zsharp(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    share: float = 0.95,
    **options: Any,
) -> SAM:
    """ZSharp: in each tensor only the outliers of the gradient move.

    These are the entries whose z-score is above a quantile. Where there is none all of
    the tensor moves. Not for sharded parameters.

    Differs from the paper: the authors' code filters tensors of two axes and more, and
    gives each a ball of radius rho; here it is one ball around all.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius.
        share: the quantile.
        options: of `flatmin.SAM`.

    Reference: Yun. Sharpness-Aware Minimization with Z-Score Gradient Filtering. 2025,
    arXiv:2505.02369.
    """
    method = TwoPoint(filter=filters.outliers(share))
    return SAM(base, model, rho=rho, method=method, **options)


def stale_sam(base: Optimizer, model: nn.Module, *, rho: float, **options: Any) -> SAM:
    r"""SAM along what the step before descended; one gradient per step.

    .. math::
        \hat\epsilon_t = \rho \, v_{t-1} / \|v_{t-1}\|_2

    The first step is the base optimizer's. The gradient of another batch is climbed
    here, which is not what SAM's results are about: for comparison.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius.
        options: of `flatmin.SAM`.
    """
    method = TwoPoint(source=sources.stale, combine=Remembered())
    return SAM(base, model, rho=rho, method=method, **options)


def momentum_sam(
    base: Optimizer, model: nn.Module, *, rho: float = 3.0, **options: Any
) -> SAM:
    r"""Momentum-SAM: against the momentum buffer; one gradient per step.

    .. math::
        \hat\epsilon = -\rho \, v / \|v\|_2

    with v the base's ``momentum_buffer`` or ``exp_avg``. Its sign is that of the
    authors' code: where the next steps are going. The weights are ``w`` whenever the
    loop is not in a pass, so evaluating and saving need no care.

    Running statistics are those of the only pass, at ``w + eps``. Before evaluating a
    model with BatchNorm recompute them with ``torch.optim.swa_utils.update_bn``.

    Differs from the paper: weight decay acts at ``w`` for every base.

    Args:
        base: a built optimizer with momentum; a step without has no perturbation.
        model: the module that the loop runs.
        rho: 3 is the paper's for CIFAR and ImageNet.
        options: of `flatmin.SAM`.

    Reference: Becker, Altrock, Risse. Momentum-SAM: Sharpness Aware Minimization
    without Computational Overhead. 2024, arXiv:2401.12033.
    """
    method = TwoPoint(source=sources.against_momentum)
    return SAM(base, model, rho=rho, method=method, **options)

"""Methods that climb along something other than the gradient."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from flatmin.core import TwoPoint, filters, sources
from flatmin.core.combine import Centred, Remembered
from flatmin.methods._fit import check_momentum
from flatmin.optim import SAM, Options
from flatmin.optim._foreign import explained


@explained
def friendly_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.1,
    sigma: float = 1.0,
    decay: float = 0.95,
    **options: Unpack[Options],
) -> SAM:
    r"""Friendly SAM: climb along the part of the gradient that other batches lack.

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
        rho: the radius; 0.1 is the default of the authors' script, like the next two.
        sigma: how much of the common part is subtracted, zero or greater.
        decay: of m, beta, from 0 to just below 1.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Li, Zhou, He, Cheng, Huang. Friendly Sharpness-Aware Minimization.
    CVPR 2024, arXiv:2403.12350.
    """
    method = TwoPoint(source=sources.friendly(sigma, decay))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def vasso(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    theta: float = 0.9,
    **options: Unpack[Options],
) -> SAM:
    r"""Variance-suppressed SAM: climb along a running mean of gradients.

    .. math::
        \hat\epsilon = \rho \, d / \|d\|_2, \qquad
        d \leftarrow (1 - \theta) d + \theta g

    With several replicas d is that of all, which costs one more all-reduce. Under a
    GradScaler it needs ``probes(scaler=scaler)``. ``theta=1`` is SAM.

    Differs from the paper: d starts at the first gradient and not at zero.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 is the default of the authors' code.
        theta: the weight of the new gradient, above 0; 0.9 in the authors' code.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Li, Giannakis. Enhancing Sharpness-Aware Optimization Through Variance
    Suppression. NeurIPS 2023, arXiv:2309.15639.
    """
    method = TwoPoint(source=sources.smoothed(theta))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def gcsam(
    base: Optimizer, model: nn.Module, *, rho: float = 0.05, **options: Unpack[Options]
) -> SAM:
    r"""Centre the gradients of ascent and descent (GCSAM).

    .. math::
        \hat\epsilon = \rho \, \phi(g) / \|\phi(g)\|_2, \qquad \phi(g_\epsilon)

    where :math:`\phi` subtracts from the gradient of each weight vector (all axes but
    the first) its mean. For a vector of one entry this leaves zero: in a layer with
    one input, or a depthwise convolution of 1 x 1.

    Differs from the authors' script, and not from the paper: the script takes the norm
    before centring, and leaves the second gradient as it is.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 is the default of the authors' script.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Hassan et al. GCSAM: Gradient Centralized Sharpness Aware Minimization.
    2025, arXiv:2501.11584.
    """
    method = TwoPoint(filter=filters.centred, combine=Centred())
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def zsharp(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    share: float = 0.95,
    **options: Unpack[Options],
) -> SAM:
    r"""ZSharp: perturb only the outliers of each tensor's gradient.

    .. math::
        \hat\epsilon = \rho \, c \odot g / \|c \odot g\|_2

    with c = 1 at the entries whose z-score within their tensor is above a quantile,
    and 0 at all others. If there is none, the whole tensor moves.

    Differs from the authors' script, and not from the paper: the script filters only
    tensors of two or more axes, and gives each a ball of radius rho.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 is the default of the authors' script.
        share: the quantile, from 0 to just below 1; 0.95 is the script's default.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Yun. Sharpness-Aware Minimization with Z-Score Gradient Filtering. 2025,
    arXiv:2505.02369.
    """
    method = TwoPoint(filter=filters.outliers(share))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def stale_sam(
    base: Optimizer, model: nn.Module, *, rho: float, **options: Unpack[Options]
) -> SAM:
    r"""Climb along the gradient of the step before; one gradient per step.

    .. math::
        \hat\epsilon_t = \rho \, v_{t-1} / \|v_{t-1}\|_2

    The first step is the base optimizer's. The method climbs along the gradient of
    another batch, which SAM's results do not cover; it is here for comparison.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius. It has no default, for we know of no published value.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.
    """
    method = TwoPoint(source=sources.stale, combine=Remembered())
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def momentum_sam(
    base: Optimizer, model: nn.Module, *, rho: float = 3.0, **options: Unpack[Options]
) -> SAM:
    r"""Momentum-SAM: perturb against the momentum buffer; one gradient per step.

    .. math::
        \hat\epsilon = -\rho \, v / \|v\|_2

    with v the base's ``momentum_buffer`` or ``exp_avg``. The first step has none and is
    the base optimizer's. The sign is that of the authors' code: the perturbation points
    where the next steps go. The weights are ``w`` whenever the loop is not in a pass,
    so evaluating and saving need no care.

    Running statistics are those of the only pass, at ``w + eps``. Before evaluating a
    model with BatchNorm recompute them with ``torch.optim.swa_utils.update_bn``.

    Differs from the paper: weight decay acts at ``w`` for every base.

    Args:
        base: a built optimizer with momentum, such as SGD or AdamW, or a wrapper of
            one.
        model: the module that the loop runs.
        rho: the radius; 3 is the paper's for CIFAR and ImageNet.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or the base has ``momentum=0``.
        RuntimeError: in the second step, if the base's state holds no momentum.

    Reference: Becker, Altrock, Risse. Momentum-SAM: Sharpness Aware Minimization
    without Computational Overhead. 2024, arXiv:2401.12033.
    """
    check_momentum(base)
    method = TwoPoint(source=sources.against_momentum)
    return SAM(base, model, rho=rho, method=method, **options)

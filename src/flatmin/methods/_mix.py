"""Methods that descend a combination of the gradients at ``w`` and ``w + eps``.

Under DistributedDataParallel each replica combines its own two gradients, and the
results are averaged once.
"""

from __future__ import annotations

import warnings
from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from flatmin.core import Radius, Shortened, TwoPoint, of_group
from flatmin.core._checks import inside
from flatmin.core.combine import Decoupled, Mixed, minus_orthogonal, renormed
from flatmin.optim import SAM, Options
from flatmin.optim._foreign import explained


@explained
def gnp(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.1,
    alpha: float = 0.8,
    **options: Unpack[Options],
) -> SAM:
    r"""Descend ``L + alpha rho ||grad L||`` to first order: a gradient norm penalty.

    .. math::
        (1 - \alpha) g + \alpha g_\epsilon

    ``alpha=1`` is SAM, ``alpha=0`` the base optimizer at SAM's price.

    Differs from the paper: nothing; the authors' code mixes g / ||g|| by default.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.1 and alpha 0.8 are the paper's for WRN-28-10.
        alpha: the penalty over rho, zero or greater.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Zhao, Zhang, Hu. Penalizing Gradient Norm for Efficiently Improving
    Generalization in Deep Learning. ICML 2022, arXiv:2202.03599.
    """
    inside("alpha", alpha, "[0, inf)", "the paper's for WRN-28-10 is 0.8")
    method = TwoPoint(combine=Mixed(1 - alpha, alpha))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def pnm(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.1,
    alpha: float = 0.8,
    **options: Unpack[Options],
) -> SAM:
    """The former name of `gnp`, deprecated: another method is known as PNM.

    Args:
        base: as for `gnp`.
        model: as for `gnp`.
        rho: as for `gnp`.
        alpha: as for `gnp`.
        options: passed on to `flatmin.SAM`.
    """
    warnings.warn(
        "flatmin.pnm is now called flatmin.gnp, as by its authors. Write flatmin.gnp.",
        DeprecationWarning,
        stacklevel=3,
    )
    return gnp(base, model, rho=rho, alpha=alpha, **options)


@explained
def gsam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.04,
    alpha: float = 0.01,
    radius: Radius = of_group,
    **options: Unpack[Options],
) -> SAM:
    r"""Surrogate-gap SAM: also narrow the gap between ``L(w + eps)`` and ``L(w)``.

    .. math::
        g_\epsilon - \alpha \Big(g -
        \frac{\langle g, g_\epsilon \rangle}{\|g_\epsilon\|^2} g_\epsilon\Big)

    ``alpha=0`` is SAM. The paper lets rho follow the learning rate:
    ``radius=flatmin.core.radii.with_rate(rho_min, lr_min, lr_max)``.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius, at the highest learning rate if it follows that; 0.04 and
            alpha 0.01 are the paper's for ResNet-50.
        alpha: the weight of the gap, zero or greater.
        radius: how rho changes over the steps; constant by default, unlike the paper's.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Zhuang et al. Surrogate Gap Minimization Improves Sharpness-Aware
    Training. ICLR 2022, arXiv:2203.08065.
    """
    if not callable(radius):
        raise TypeError(
            f"radius must be one of flatmin.core.radii, such as with_rate(...), got "
            f"{radius!r}. A number is rho={radius!r}."
        )
    method = TwoPoint(combine=minus_orthogonal(alpha), radius=radius)
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def wsam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    gamma: float = 0.9,
    **options: Unpack[Options],
) -> SAM:
    r"""Weighted SAM, decoupled: descend the sharpness in a step of its own.

    .. math::
        w \leftarrow \mathrm{base}(w, g) - \eta
        \frac{\gamma}{1 - \gamma} (g_\epsilon - g)

    with the learning rate :math:`\eta` of each group. ``gamma=0`` is the base
    optimizer at SAM's price. Under a GradScaler it needs ``probes(scaler=scaler)``.
    Clipping after the loop clips g alone.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 and gamma 0.9 are the defaults of the authors' code.
        gamma: from 0 to just below 1.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Yue, Jiang, Ye, Gao, Liu, Zhang. Sharpness-Aware Minimization Revisited:
    Weighted Sharpness as a Regularization Term. KDD 2023, arXiv:2305.15817.
    """
    method = TwoPoint(combine=Decoupled(_odds(gamma)))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def coupled_wsam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    gamma: float = 0.9,
    **options: Unpack[Options],
) -> SAM:
    r"""Weighted SAM, coupled: descend loss and sharpness in one weighted step.

    .. math::
        g + \frac{\gamma}{1 - \gamma} (g_\epsilon - g)

    ``gamma=0.5`` is SAM, ``gamma=0`` the base optimizer at SAM's price.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 and gamma 0.9 are the defaults of the authors' code.
        gamma: from 0 to just below 1.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: as `wsam`.
    """
    a = _odds(gamma)
    method = TwoPoint(combine=Mixed(1 - a, a))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def stable_sam(
    base: Optimizer, model: nn.Module, *, rho: float = 0.05, **options: Unpack[Options]
) -> SAM:
    r"""StableSAM: keep SAM's direction at the length of the gradient at ``w``.

    .. math::
        g_\epsilon \, \|g\| / \|g_\epsilon\|

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 is the default of the authors' code.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Tan, Zhang, Liu, Wang, Hao. Stabilizing Sharpness-Aware Minimization
    through a Simple Renormalization Strategy. JMLR 2025, arXiv:2401.07250.
    """
    method = TwoPoint(combine=renormed())
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def sagm(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    alpha: float = 0.001,
    **options: Unpack[Options],
) -> SAM:
    r"""Match the gradients at ``w`` and ``w + eps`` (SAGM), for domain generalization.

    .. math::
        \hat\epsilon = (\rho / \|g\| - \alpha) g, \qquad (g + g_\epsilon) / 2

    Under a GradScaler it needs ``probes(scaler=scaler)``.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 and alpha 0.001 are the defaults of the authors' code.
        alpha: on the scale of a learning rate, zero or greater; with 0 it is `gnp`
            with ``alpha=0.5``.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Wang, Zhang, Lei, Zhang. Sharpness-Aware Gradient Matching for Domain
    Generalization. CVPR 2023, arXiv:2303.10353.
    """
    method = TwoPoint(metric=Shortened(alpha), combine=Mixed(0.5, 0.5))
    return SAM(base, model, rho=rho, method=method, **options)


def _odds(gamma: float) -> float:
    inside("gamma", gamma, "[0, 1)", "the authors' code has 0.9")
    return gamma / (1 - gamma)

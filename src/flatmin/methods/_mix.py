"""Methods that descend a combination of the gradients at ``w`` and ``w + eps``.

Under DistributedDataParallel each replica combines its own two, and the results are
averaged once.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from flatmin.core import Radius, Shortened, TwoPoint, of_group
from flatmin.core.combine import Decoupled, Mixed, minus_orthogonal, renormed
from flatmin.optim import SAM


def pnm(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.1,
    alpha: float = 0.8,
    **options: Any,
) -> SAM:
    r"""Penalised gradient norm: descends ``L + alpha rho ||grad L||``, to first order.

    .. math::
        (1 - \alpha) g + \alpha g_\epsilon

    ``alpha=1`` is SAM, ``alpha=0`` the base optimizer at SAM's price.

    Differs from the paper: nothing; the authors' code mixes g / ||g|| by default.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.1 and alpha 0.8 are the paper's for WRN-28-10.
        alpha: the penalty over rho.
        options: of `flatmin.SAM`.

    Reference: Zhao, Zhang, Hu. Penalizing Gradient Norm for Efficiently Improving
    Generalization in Deep Learning. ICML 2022, arXiv:2202.03599.
    """
    method = TwoPoint(combine=Mixed(1 - alpha, alpha))
    return SAM(base, model, rho=rho, method=method, **options)


def gsam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.04,
    alpha: float = 0.01,
    radius: Radius = of_group,
    **options: Any,
) -> SAM:
    r"""Surrogate-gap SAM: also closes the gap between ``L(w + eps)`` and ``L(w)``.

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
        alpha: the weight of the gap.
        radius: how rho goes on.
        options: of `flatmin.SAM`.

    Reference: Zhuang et al. Surrogate Gap Minimization Improves Sharpness-Aware
    Training. ICLR 2022, arXiv:2203.08065.
    """
    method = TwoPoint(combine=minus_orthogonal(alpha), radius=radius)
    return SAM(base, model, rho=rho, method=method, **options)


def wsam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    gamma: float = 0.9,
    **options: Any,
) -> SAM:
    r"""Weighted SAM, decoupled: sharpness is a step of its own.

    .. math::
        w \leftarrow \mathrm{base}(w, g) - \eta
        \frac{\gamma}{1 - \gamma} (g_\epsilon - g)

    with the learning rate :math:`\eta` of each group. Under a GradScaler it needs
    ``probes(scaler=scaler)``. Clipping after the loop clips g alone.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 and gamma 0.9 are the defaults of the authors' code.
        gamma: from 0, the base optimizer, to just below 1.
        options: of `flatmin.SAM`.

    Reference: Yue, Jiang, Ye, Gao, Liu, Zhang. Sharpness-Aware Minimization Revisited:
    Weighted Sharpness as a Regularization Term. KDD 2023, arXiv:2305.15817.
    """
    method = TwoPoint(combine=Decoupled(_odds(gamma)))
    return SAM(base, model, rho=rho, method=method, **options)


def coupled_wsam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    gamma: float = 0.9,
    **options: Any,
) -> SAM:
    r"""Weighted SAM, coupled: one step along the weighted sum.

    .. math::
        g + \frac{\gamma}{1 - \gamma} (g_\epsilon - g)

    ``gamma=0.5`` is SAM.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 and gamma 0.9 are the defaults of the authors' code.
        gamma: from 0, the base optimizer, to just below 1.
        options: of `flatmin.SAM`.

    Reference: as `wsam`.
    """
    a = _odds(gamma)
    method = TwoPoint(combine=Mixed(1 - a, a))
    return SAM(base, model, rho=rho, method=method, **options)


def stable_sam(
    base: Optimizer, model: nn.Module, *, rho: float = 0.05, **options: Any
) -> SAM:
    r"""StableSAM: SAM's direction with the length of the gradient at ``w``.

    .. math::
        g_\epsilon \, \|g\| / \|g_\epsilon\|

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius.
        options: of `flatmin.SAM`.

    Reference: Tan, Zhang, Liu, Wang, Hao. Stabilizing Sharpness-Aware Minimization
    through a Simple Renormalization Strategy. JMLR 2025, arXiv:2401.07250.
    """
    method = TwoPoint(combine=renormed())
    return SAM(base, model, rho=rho, method=method, **options)


def sagm(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    alpha: float = 0.001,
    **options: Any,
) -> SAM:
    r"""Sharpness-aware gradient matching, for domain generalization.

    .. math::
        \hat\epsilon = (\rho / \|g\| - \alpha) g, \qquad (g + g_\epsilon) / 2

    Under a GradScaler it needs ``probes(scaler=scaler)``.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 and alpha 0.001 are the defaults of the authors' code.
        alpha: on the scale of a learning rate.
        options: of `flatmin.SAM`.

    Reference: Wang, Zhang, Lei, Zhang. Sharpness-Aware Gradient Matching for Domain
    Generalization. CVPR 2023, arXiv:2303.10353.
    """
    method = TwoPoint(metric=Shortened(alpha), combine=Mixed(0.5, 0.5))
    return SAM(base, model, rho=rho, method=method, **options)


def _odds(gamma: float) -> float:
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma must be in [0, 1), got {gamma}; the paper's is 0.9.")
    return gamma / (1 - gamma)

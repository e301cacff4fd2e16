"""Methods that take more than two gradients per step."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from flatmin.core.programs import BothSides, FirstOrderFlat, MultiStep, SecondOrder
from flatmin.optim import SAM


def multi_step_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    k: int = 3,
    **options: Any,
) -> SAM:
    """SAM with k ascent steps, each of length rho and brought back into the ball.

    ``k=1`` is SAM.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius of the ball and the length of a step; one for all groups.
        k: how many steps up.
        options: of `flatmin.SAM`.

    Reference: Foret et al. ICLR 2021, arXiv:2010.01412, appendix C.5.
    """
    return SAM(base, model, rho=rho, method=MultiStep(k), **options)


def second_order_sam(
    base: Optimizer, model: nn.Module, *, rho: float = 0.05, **options: Any
) -> SAM:
    r"""The exact gradient of SAM's objective, with what eps owes to w.

    .. math::
        g_\epsilon + \frac{\rho}{\|g\|} H \big(g_\epsilon -
        \langle u, g_\epsilon \rangle u\big), \qquad u = g / \|g\|

    The third pass differentiates twice: the loop calls ``probe.backward(loss)``.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; one for all groups.
        options: of `flatmin.SAM`.

    Reference: Foret et al. ICLR 2021, arXiv:2010.01412, appendix C.4.
    """
    return SAM(base, model, rho=rho, method=SecondOrder(), **options)


def cr_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.1,
    gamma: float = 0.1,
    beta: float = 0.1,
    **options: Any,
) -> SAM:
    r"""Curvature-regularised SAM: looks at both sides of ``w``.

    .. math::
        g_+ + \gamma (g_+ + g_- - 2 g) + \beta (g_+ - g_-)

    ``gamma = beta = 0`` is SAM at the price of three gradients.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.1 is the default of the authors' code for all three.
        gamma: the weight of the curvature.
        beta: the weight of the slope.
        options: of `flatmin.SAM`.

    Reference: Wu, Luo, Wunsch. CR-SAM: Curvature Regularized Sharpness-Aware
    Minimization. AAAI 2024, arXiv:2312.13555.
    """
    return SAM(base, model, rho=rho, method=BothSides(gamma, beta), **options)


def gam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.2,
    slope_rho: float = 0.02,
    alpha: float = 0.6,
    beta: float = 0.5,
    gamma: float = 0.03,
    **options: Any,
) -> SAM:
    r"""Gradient-norm aware minimization: flat in the loss and in its slope.

    .. math::
        v - \gamma (m - \mathrm{proj}_v m), \qquad
        v = \alpha g_1 + (1 - \alpha) g_3, \qquad m = g_0 + (1 - \beta) g_2

    with g0 at w, g1 at :math:`w + r \hat g_0`, g2 at :math:`w + \rho \hat h` for
    h = g1 - g0, and g3 at :math:`w + \rho \hat h + r \hat g_2`.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: how far along h; the defaults are the authors' for CIFAR.
        slope_rho: r, how far along g0 and g2.
        alpha: the weight of g1.
        beta: one minus the weight of g2.
        gamma: the weight of the orthogonal part.
        options: of `flatmin.SAM`.

    Reference: Zhang, Xu, Yu, Zou, Cui. Gradient Norm Aware Minimization Seeks
    First-Order Flatness and Improves Generalization. CVPR 2023, arXiv:2303.03108.
    """
    share = slope_rho / rho if rho else 0.0
    method = FirstOrderFlat(share, alpha, beta, gamma)
    return SAM(base, model, rho=rho, method=method, **options)

"""Methods with another ball around the weights."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from flatmin.core import LpBall, PerLayer, TwoPoint, Unnormalised, sources
from flatmin.core.scales import Adaptive, Fisher
from flatmin.methods._fit import check_weights
from flatmin.optim import SAM, Options
from flatmin.optim._foreign import explained


@explained
def asam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.5,
    eta: float = 0.01,
    **options: Unpack[Options],
) -> SAM:
    r"""Adaptive SAM: measure the ball in units of each weight's size.

    .. math::
        \hat\epsilon = \rho \, T^2 g / \|T g\|_2, \qquad T = |w| + \eta

    for parameters with "weight" in their name, and T = 1 for all others. Rescaling two
    layers such that the network stays the same leaves the network at ``w + eps`` the
    same (with eta = 0). Parameters with other names, such as ``cls_token`` or
    ``pos_embed`` of a vision transformer, move as in SAM, by up to rho.

    Differs from the paper: nothing; T = 1 for other names is its authors' code.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.5 is the paper's for CIFAR-10, 1.0 that for CIFAR-100.
        eta: keeps weights of zero movable; 0.01 is the default of the authors' code.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or the base trains no parameter with
            "weight" in its name.

    Reference: Kwon, Kim, Park, Choi. ASAM: Adaptive Sharpness-Aware Minimization for
    Scale-Invariant Learning of Deep Neural Networks. ICML 2021, arXiv:2102.11600.
    """
    check_weights(base, model)
    method = TwoPoint(scale=Adaptive(eta))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def fisher_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.1,
    eta: float = 1.0,
    **options: Unpack[Options],
) -> SAM:
    r"""Fisher SAM: measure the ball by the Fisher information of the batch.

    .. math::
        \hat\epsilon = \rho \, F^{-1} g / \sqrt{g^\top F^{-1} g}, \qquad
        F = 1 + \eta \, \mathrm{diag}(g^2)

    ``eta=0`` is SAM. Under a GradScaler it needs ``probes(scaler=scaler)``.

    Differs from the paper: g is the gradient of the batch, as in public code, and not
    that of each example.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.1 is the default of code that is not the authors'
            (johnjaejunlee95/torch-unified-SAM-optimization), like eta's.
        eta: the weight of the information.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Kim, Li, Hu, Hospedales. Fisher SAM: Information Geometry and Sharpness
    Aware Minimisation. ICML 2022, arXiv:2206.04920.
    """
    method = TwoPoint(scale=Fisher(eta))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def layer_sam(
    base: Optimizer, model: nn.Module, *, rho: float, **options: Unpack[Options]
) -> SAM:
    r"""Layer-wise SAM: give each parameter a ball in proportion to its length.

    .. math::
        \hat\epsilon_l = \rho \, \|w_l\| \, g_l / \|g_l\|

    Differs from the paper: a layer is a parameter; a parameter of zeros does not move.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius, relative to each parameter's length. It has no default, for
            we know of no published value that is in this unit.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Liu, Mai, Chen, Hsieh, You. Towards Efficient and Scalable
    Sharpness-Aware Minimization. CVPR 2022, arXiv:2203.02714.
    """
    method = TwoPoint(metric=PerLayer(LpBall()))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def usam(
    base: Optimizer, model: nn.Module, *, rho: float, **options: Unpack[Options]
) -> SAM:
    r"""Unnormalised SAM: climb further where the loss is steeper.

    .. math::
        \hat\epsilon = \rho \, g

    Under a GradScaler it needs ``probes(scaler=scaler)``.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: on the scale of a learning rate and not of SAM's radius. It has no
            default, because it depends on the size of the gradients.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Andriushchenko, Flammarion. Towards Understanding Sharpness-Aware
    Minimization. ICML 2022, arXiv:2206.06232.
    """
    method = TwoPoint(metric=Unnormalised())
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def random_sam(
    base: Optimizer, model: nn.Module, *, rho: float = 0.05, **options: Unpack[Options]
) -> SAM:
    r"""Perturb at random with length rho, for comparison; one gradient per step.

    .. math::
        \hat\epsilon = \rho \, z / \|z\|_2, \qquad z \sim N(0, I)

    Differs from the paper: it prints :math:`\rho z / \|z\|_2^2`, whose length is not
    rho. Ours has length rho.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the length; 0.05 is SAM's radius.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for
    Efficiently Improving Generalization. ICLR 2021, arXiv:2010.01412, appendix C.5.
    """
    method = TwoPoint(source=sources.at_random)
    return SAM(base, model, rho=rho, method=method, **options)

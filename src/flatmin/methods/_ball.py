"""Methods with another ball, or another set of weights that move in it."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from flatmin.core import LpBall, PerLayer, TwoPoint, Unnormalised, filters, sources
from flatmin.core.scales import Adaptive, Fisher
from flatmin.core.sparse import FisherMasked
from flatmin.optim import SAM


def asam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.5,
    eta: float = 0.01,
    **options: Any,
) -> SAM:
    r"""Adaptive SAM: a ball in units of each weight's size.

    .. math::
        \hat\epsilon = \rho \, T^2 g / \|T g\|_2, \qquad T = |w| + \eta

    for parameters with "weight" in their name, and T = 1 for all others. Rescaling two
    layers such that the network stays the same, leaves the network at ``w + eps`` the
    same (with eta = 0).

    Differs from the paper: nothing; T = 1 for biases is that of its authors' code.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: 0.5 is the paper's for CIFAR-10, 1.0 that for CIFAR-100.
        eta: 0.01 in the authors' code; keeps weights of zero movable.
        options: of `flatmin.SAM`.

    Reference: Kwon, Kim, Park, Choi. ASAM: Adaptive Sharpness-Aware Minimization for
    Scale-Invariant Learning of Deep Neural Networks. ICML 2021, arXiv:2102.11600.
    """
    return SAM(base, model, rho=rho, method=TwoPoint(scale=Adaptive(eta)), **options)


def fisher_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.1,
    eta: float = 1.0,
    **options: Any,
) -> SAM:
    r"""Fisher SAM: a ball in the metric of the batch's Fisher information.

    .. math::
        \hat\epsilon = \rho \, F^{-1} g / \sqrt{g^\top F^{-1} g}, \qquad
        F = 1 + \eta \, \mathrm{diag}(g^2)

    Differs from the paper: g is the gradient of the batch, as in public code, and not
    that of each example.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius.
        eta: the weight of the information.
        options: of `flatmin.SAM`.

    Reference: Kim, Li, Hu, Hospedales. Fisher SAM: Information Geometry and
    Sharpness-Aware Minimisation. ICML 2022, arXiv:2206.04920.
    """
    return SAM(base, model, rho=rho, method=TwoPoint(scale=Fisher(eta)), **options)


def layer_sam(base: Optimizer, model: nn.Module, *, rho: float, **options: Any) -> SAM:
    r"""Layer-wise SAM: a ball for each parameter, as large as the parameter is long.

    .. math::
        \hat\epsilon_l = \rho \, \|w_l\| \, g_l / \|g_l\|

    Differs from the paper: a layer is a parameter; a parameter of zeros does not move.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius, relative to each parameter's length.
        options: of `flatmin.SAM`.

    Reference: Liu, Mai, Chen, Hsieh, You. Towards Efficient and Scalable
    Sharpness-Aware Minimization. CVPR 2022, arXiv:2203.02714.
    """
    method = TwoPoint(metric=PerLayer(LpBall()))
    return SAM(base, model, rho=rho, method=method, **options)


def usam(base: Optimizer, model: nn.Module, *, rho: float, **options: Any) -> SAM:
    r"""Unnormalised SAM: the steeper the loss, the further.

    .. math::
        \hat\epsilon = \rho \, g

    Under a GradScaler it needs ``probes(scaler=scaler)``.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: on the scale of a learning rate and not of SAM's radius.
        options: of `flatmin.SAM`.

    Reference: Andriushchenko, Flammarion. Towards Understanding Sharpness-Aware
    Minimization. ICML 2022, arXiv:2206.06232.
    """
    return SAM(base, model, rho=rho, method=TwoPoint(metric=Unnormalised()), **options)


def random_sam(
    base: Optimizer, model: nn.Module, *, rho: float = 0.05, **options: Any
) -> SAM:
    r"""A random perturbation of length rho, for comparison; one gradient per step.

    .. math::
        \hat\epsilon = \rho \, z / \|z\|_2, \qquad z \sim N(0, I)

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the length.
        options: of `flatmin.SAM`.

    Reference: Foret et al. ICLR 2021, arXiv:2010.01412, appendix C.
    """
    method = TwoPoint(source=sources.at_random)
    return SAM(base, model, rho=rho, method=method, **options)


def sam_on(base: Optimizer, model: nn.Module, *, rho: float, **options: Any) -> SAM:
    """SAM-ON: only the parameters of normalisation layers move.

    The norm is taken over these. Layers are recognised by type and not by name.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: about ten times SAM's.
        options: of `flatmin.SAM`.

    Reference: Mueller, Vlaar, Rolnick, Hein. Normalization Layers Are All That
    Sharpness-Aware Minimization Needs. NeurIPS 2023, arXiv:2306.04226.
    """
    method = TwoPoint(filter=filters.within(*filters.NORMS))
    return SAM(base, model, rho=rho, method=method, **options)


def sparse_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    every: int,
    rho: float = 0.1,
    share: float = 0.5,
    samples: int = 16,
    m: int = 1,
    **options: Any,
) -> SAM:
    r"""Sparse SAM (SSAM-F): only the weights of highest Fisher information move.

    .. math::
        \hat\epsilon = \rho \, c \odot g / \|g\|_2

    with c = 1 at the share of all weights where the sum of squared gradients of single
    examples is highest, and 0 elsewhere. So :math:`\hat\epsilon` is shorter than rho.
    ``share=1`` is SAM. Every so many steps the loop body runs ``samples`` times more,
    on what ``probe.take(x, y)`` gives it: one example each. With several processes,
    each takes its own.

    Differs from the paper: the examples are those of the batch at hand, and the first
    mask is made in the first step and not after it. Layers that normalise over a batch
    see single examples; ``m=2`` and more take the gradients of so many.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        every: how many steps a mask lasts; an epoch in the authors' commands.
        rho: the radius; 0.1, share 0.5 and 16 samples are the authors' for CIFAR.
        share: of the weights that move.
        samples: how many gradients the information is from.
        m: how many examples each of them is the gradient of.
        options: of `flatmin.SAM`.

    Reference: Mi, Shen, Ren, Zhou, Sun, Ji, Tao. Make Sharpness-Aware Minimization
    Stronger: A Sparsified Perturbation Approach. NeurIPS 2022, arXiv:2210.05177.
    """
    method = FisherMasked(share, every, samples, m)
    return SAM(base, model, rho=rho, method=method, **options)

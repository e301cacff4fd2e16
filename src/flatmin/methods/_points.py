"""Methods with more than two points, or with points elsewhere than SAM's."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import SGD, Optimizer

from flatmin.core.nested import Lookbehind
from flatmin.core.posterior import Variational
from flatmin.core.programs import BothSides, FirstOrderFlat, MultiStep, SecondOrder
from flatmin.optim import SAM, Options
from flatmin.optim._bases import check_base
from flatmin.optim._foreign import explained


@explained
def multi_step_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    k: int = 3,
    **options: Unpack[Options],
) -> SAM:
    r"""Climb k steps of length rho, each projected onto the ball.

    .. math::
        \epsilon_i = \Pi_\rho \Big(\epsilon_{i-1} + \rho \,
        \frac{\nabla L(w + \epsilon_{i-1})}{\|\nabla L(w + \epsilon_{i-1})\|} \Big)

    from :math:`\epsilon_0 = 0`, with :math:`\Pi_\rho` the projection on the ball.
    ``k=1`` is SAM.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius of the ball and the length of a step; 0.05 is SAM's.
        k: how many steps up; 3 is our choice, the paper compares several.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for
    Efficiently Improving Generalization. ICLR 2021, arXiv:2010.01412, appendix C.6.
    """
    return SAM(base, model, rho=rho, method=MultiStep(k), **options)


@explained
def second_order_sam(
    base: Optimizer, model: nn.Module, *, rho: float = 0.05, **options: Unpack[Options]
) -> SAM:
    r"""Descend SAM's exact gradient, with the derivative of eps by w.

    .. math::
        g_\epsilon + \frac{\rho}{\|g\|} H \big(g_\epsilon -
        \langle u, g_\epsilon \rangle u\big), \qquad u = g / \|g\|

    The third pass differentiates twice: the loop calls ``probe.backward(loss)``.

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.second_order_sam(base, model)
        >>> x, y = torch.randn(32, 4), torch.randint(2, (32,))
        >>> for probe in optimizer.probes():
        ...     probe.backward(torch.nn.functional.cross_entropy(model(x), y))
        >>> optimizer.step()

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 is SAM's.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for
    Efficiently Improving Generalization. ICLR 2021, arXiv:2010.01412, appendix C.4.
    """
    return SAM(base, model, rho=rho, method=SecondOrder(), **options)


@explained
def cr_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.1,
    gamma: float = 0.1,
    beta: float = 0.1,
    **options: Unpack[Options],
) -> SAM:
    r"""Curvature-regularised SAM: also take the gradient at ``w - eps``.

    .. math::
        g_+ + \gamma (g_+ + g_- - 2 g) + \beta (g_+ - g_-)

    with :math:`g_\pm = \nabla L(w \pm \rho \, g / \|g\|)`. ``gamma = beta = 0`` is SAM
    at the price of three gradients.

    Differs from the paper: these are the formula and the weights of the authors' code.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.1 is the default of the authors' class for all three.
        gamma: the weight of the curvature, zero or greater.
        beta: the weight of the slope, zero or greater; 0.01 in the authors' training
            script.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Wu, Luo, Wunsch. CR-SAM: Curvature Regularized Sharpness-Aware
    Minimization. AAAI 2024, arXiv:2312.13555.
    """
    return SAM(base, model, rho=rho, method=BothSides(gamma, beta), **options)


@explained
def gam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.2,
    slope_rho: float = 0.02,
    alpha: float = 0.6,
    beta: float = 0.5,
    gamma: float = 0.03,
    **options: Unpack[Options],
) -> SAM:
    r"""Gradient-norm aware minimization: also lower the gradient's length near ``w``.

    .. math::
        v - \gamma (m - \mathrm{proj}_v m), \qquad
        v = \alpha g_1 + (1 - \alpha) g_3, \qquad m = g_0 + (1 - \beta) g_2

    with g0 at w, g1 at :math:`w + r \hat g_0`, g2 at :math:`w + \rho \hat h` for
    h = g1 - g0, and g3 at :math:`w + \rho \hat h + r \hat g_2`.

    Differs from the paper: this is what the authors' repository calls accelerated GAM,
    the method of the paper's appendix D, and not its algorithm with products of the
    Hessian.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: how far along h; the defaults are the authors' for ResNets on CIFAR-100.
        slope_rho: r, how far along g0 and g2, above 0 and the same for all groups. It
            stays as it is when ``"sam_rho"`` changes.
        alpha: the weight of g1, from 0 to 1.
        beta: one minus the weight of g2, from 0 to 1.
        gamma: the weight of the orthogonal part, zero or greater.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Zhang, Xu, Yu, Zou, Cui. Gradient Norm Aware Minimization Seeks
    First-Order Flatness and Improves Generalization. CVPR 2023, arXiv:2303.03108.
    """
    method = FirstOrderFlat(slope_rho, alpha, beta, gamma)
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def lookbehind_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    k: int = 2,
    alpha: float = 0.5,
    **options: Unpack[Options],
) -> SAM:
    r"""Lookbehind-SAM: climb k steps, descend k steps, then go a part of the way.

    .. math::
        z_i = z_{i-1} + \rho \, g_{i-1} / \|g_{i-1}\|, \qquad
        w_i = \mathrm{base}(w_{i-1}, g_i), \qquad g_i = \nabla L(z_i)

    from :math:`z_0 = w_0`, and after k of these steps :math:`w \leftarrow w_0 + \alpha
    (w_k - w_0)`. The loop makes k steps with each batch; schedulers and evaluation
    belong after the k-th. ``k = alpha = 1`` is SAM.

    A block of k steps takes k + 1 gradients: each step climbs along the gradient that
    the step before descended. The authors' code computes it again. With several
    replicas all climb together.

    Differs from the paper: its adaptive alpha is not offered.

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.lookbehind_sam(base, model, k=2)
        >>> x, y = torch.randn(32, 4), torch.randint(2, (32,))
        >>> for _ in range(2):
        ...     for probe in optimizer.probes():
        ...         torch.nn.functional.cross_entropy(model(x), y).backward()
        ...     optimizer.step()

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the length of each climb; 0.05 and k 2 are those of the authors' command.
        k: how many steps use one batch.
        alpha: how much of the k steps is kept, above 0; the paper tries 0.2, 0.5, 0.8.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Mordido, Malviya, Baratin, Chandar. Lookbehind-SAM: k steps back, 1 step
    forward. ICML 2024, arXiv:2307.16704.
    """
    return SAM(
        base,
        model,
        rho=rho,
        method=Lookbehind(k, alpha),
        **options,
    )


@explained
def bsam(
    base: Optimizer,
    model: nn.Module,
    *,
    n: int,
    rho: float = 0.01,
    precision: float = 40.0,
    betas: tuple[float, float] = (0.9, 0.999),
    damping: float = 0.1,
    start: float = 1.0,
    **options: Unpack[Options],
) -> SAM:
    r"""Bayesian SAM: learn a Gaussian around the weights, with its precision.

    .. math::
        g = \nabla L(w + z / \sqrt{N s}), \qquad
        g_\epsilon = \nabla L(w + \rho \, g / s), \qquad
        m \leftarrow \beta_1 m + (1 - \beta_1)(g_\epsilon + \delta w)

    with normal z. The base descends m / s, and then

    .. math::
        s \leftarrow \beta_2 s + (1 - \beta_2)(\sqrt{s} |g| + \text{damping} + \delta)

    with :math:`\delta` the precision over N. Under a GradScaler it needs
    ``probes(scaler=scaler)``.

    The posterior is :math:`N(w, 1 / (N s))`: s of a parameter is
    ``optimizer.state[p]["sam_scale"]``.

    Differs from the paper: the step is divided by the s from before its update, as in
    the authors' code. Several perturbations per batch are those of several processes,
    which draw one z.

    Args:
        base: ``torch.optim.SGD`` without momentum and weight decay, which the method
            has itself; its learning rate is the paper's alpha, 0.5 for CIFAR.
        model: the module that the loop runs.
        n: how many examples the training set has. With random crops and flips the
            authors count each four times: for CIFAR they have ``n=4 * 50_000``.
        rho: the radius; 0.01 and precision 40 are the authors' for CIFAR.
        precision: of the prior, zero or greater.
        betas: of m and s, each from 0 to just below 1. The defaults of betas, damping
            and start are those of the authors' code.
        damping: keeps s above zero.
        start: the first s, above 0.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or the base is not SGD, has a momentum
            or decays weights.

    Reference: Moellenhoff, Khan. SAM as an Optimal Relaxation of Bayes. ICLR 2023,
    arXiv:2210.01620.
    """
    check_base(base)
    for group in base.param_groups:
        if not isinstance(base, SGD) or group["momentum"] or group["weight_decay"]:
            raise ValueError(
                "bsam has momentum and decay of its own and needs a base of "
                "torch.optim.SGD(parameters, lr) without them, got "
                f"{type(base).__name__} with {group.get('momentum', 'another')} "
                f"momentum and weight_decay {group.get('weight_decay', 0)}."
            )
    method = Variational(n, precision, betas, damping, start)
    return SAM(base, model, rho=rho, method=method, **options)

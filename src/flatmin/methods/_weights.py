"""Methods that move only some of the weights, or some further than the others."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from flatmin.core import TwoPoint, filters
from flatmin.core.sparse import FisherMasked
from flatmin.core.stretch import Stretched
from flatmin.methods._fit import check_norms
from flatmin.optim import SAM, Options
from flatmin.optim._foreign import explained


@explained
def sam_on(
    base: Optimizer, model: nn.Module, *, rho: float, **options: Unpack[Options]
) -> SAM:
    r"""SAM-ON: perturb only the parameters of normalisation layers.

    .. math::
        \hat\epsilon = \rho \, c \odot g / \|c \odot g\|_2

    with c = 1 at these parameters and 0 at all others. Layers are recognised by type
    and not by name: those of `flatmin.core.filters.NORMS`.

    Differs from the paper: the ball is SAM's; the paper has that of ASAM as well.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: about ten times SAM's. It has no default: the one command that the authors
            publish has 10, for the ball of ASAM.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or the base trains no parameter of a
            normalisation layer.

    Reference: Mueller, Vlaar, Rolnick, Hein. Normalization Layers Are All That
    Sharpness-Aware Minimization Needs. NeurIPS 2023, arXiv:2306.04226.
    """
    check_norms(base, model)
    method = TwoPoint(filter=filters.within(*filters.NORMS))
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def sparse_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    every: int,
    rho: float = 0.1,
    share: float = 0.5,
    samples: int = 16,
    m: int = 1,
    **options: Unpack[Options],
) -> SAM:
    r"""Sparse SAM (SSAM-F): perturb only the weights of highest Fisher information.

    .. math::
        \hat\epsilon = \rho \, c \odot g / \|g\|_2

    with c = 1 at the share of all weights where the sum of squared gradients of single
    examples is highest, and 0 elsewhere. So :math:`\hat\epsilon` is shorter than rho.
    ``share=1`` is SAM. Every ``every`` steps the loop body runs ``samples`` times more,
    on what ``probe.take(x, y)`` gives it: one example each. With several processes,
    each takes its own.

    Differs from the paper: the examples are those of the batch at hand, and the first
    mask is made in the first step and not after it. Layers that normalise over a batch
    see single examples; with ``m=2`` or more they see m of them.

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.sparse_sam(base, model, every=100)
        >>> x, y = torch.randn(32, 4), torch.randint(2, (32,))
        >>> for probe in optimizer.probes():
        ...     inputs, targets = probe.take(x, y)
        ...     torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        >>> optimizer.step()

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        every: how many steps a mask lasts; the authors' commands have an epoch.
        rho: the radius; 0.1, share 0.5 and 16 samples are the authors' command for
            CIFAR-10.
        share: of the weights that move.
        samples: how many gradients the Fisher information is computed from.
        m: how many examples each of these gradients is of; 1 is the paper's.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Mi, Shen, Ren, Zhou, Sun, Ji, Tao. Make Sharpness-Aware Minimization
    Stronger: A Sparsified Perturbation Approach. NeurIPS 2022, arXiv:2210.05177.
    """
    method = FisherMasked(share, every, samples, m)
    return SAM(base, model, rho=rho, method=method, **options)


@explained
def ire(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 2.0,
    sharp: float = 0.1,
    every: int = 10,
    start: int = 0,
    **options: Unpack[Options],
) -> SAM:
    r"""IRE: let the base optimizer go further along weights where the loss is flat.

    .. math::
        w_{t+1} = w_t + (1 + \kappa P) \odot u_t, \qquad
        P_i = [\, |g_i| \text{ is none of the largest} \,]

    with the base's own step u, all of it, weight decay and momentum included. P is
    computed anew every ``every`` steps. There is no climb and no second gradient;
    kappa takes the place of the radius, as ``"sam_rho"`` in ``param_groups``.

    The learning rate of most weights is multiplied by 1 + kappa. Compare with a base
    whose learning rate was tuned before you attribute a gain to flatness.

    A copy of the weights is kept during each step, and P stays in the state.
    All weights are ranked together, by the gradient of the whole batch: micro-batches
    (``probes(accumulate=True)``) are refused, and the parts of sharded parameters are
    ranked over all processes. To do the same around another method, use
    `flatmin.core.stretch.Stretched`.

    Differs from the paper: P ranks weights by the size of the batch's gradient, as in
    the newer of the authors' programs for language models, which they call simpler and
    faster. The paper ranks them by an estimate of the diagonal of the Fisher
    information.

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.ire(base, model, rho=1.0, start=10)
        >>> x, y = torch.randn(8, 4), torch.randint(2, (8,))
        >>> for probe in optimizer.probes():
        ...     torch.nn.functional.cross_entropy(model(x), y).backward()
        >>> optimizer.step()

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: kappa, at least 0. The authors' commands have 2 for vision transformers and
            3 to 4 for language models.
        sharp: the share of the weights that move as the base moves them, below 1; 0.1
            is the authors' default.
        every: how many steps P lasts; 10 is the authors'.
        start: the first step that is stretched. The authors begin after 70 of 200
            epochs on CIFAR, and after 100 of 300 on ImageNet.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Wang, Wang, He, Wang, Huang, Xiong, Li, E, Wu. Improving Generalization
    and Convergence by Enhancing Implicit Regularization. NeurIPS 2024,
    arXiv:2405.20763.
    """
    method = Stretched(sharp, every, start)
    return SAM(base, model, rho=rho, method=method, **options)

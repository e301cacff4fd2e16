"""Methods that move some of the weights alone."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from flatmin.core import TwoPoint, filters
from flatmin.core.sparse import FisherMasked
from flatmin.methods._fit import check_norms
from flatmin.optim import SAM, Options
from flatmin.optim._foreign import explained


@explained
def sam_on(
    base: Optimizer, model: nn.Module, *, rho: float, **options: Unpack[Options]
) -> SAM:
    r"""SAM-ON: only the parameters of normalisation layers move.

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
        samples: how many gradients the information is from.
        m: how many examples each of them is the gradient of; 1 is the paper's.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Mi, Shen, Ren, Zhou, Sun, Ji, Tao. Make Sharpness-Aware Minimization
    Stronger: A Sparsified Perturbation Approach. NeurIPS 2022, arXiv:2210.05177.
    """
    method = FisherMasked(share, every, samples, m)
    return SAM(base, model, rho=rho, method=method, **options)

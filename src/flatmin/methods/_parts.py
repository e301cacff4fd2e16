"""SAM on a part of the loss."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from flatmin.core.parts import OnPart
from flatmin.optim import SAM, Options
from flatmin.optim._foreign import explained


@explained
def part_sam(
    base: Optimizer, model: nn.Module, *, rho: float = 0.05, **options: Unpack[Options]
) -> SAM:
    r"""Climb one part of the loss (ImbSAM); descend the rest at ``w``.

    .. math::
        \nabla L_\mathrm{flat}(w + \hat\epsilon) + \nabla L_\mathrm{rest}(w), \qquad
        \hat\epsilon = \rho \, \nabla L_\mathrm{flat}(w) /
        \|\nabla L_\mathrm{flat}(w)\|_2

    The flat part is, for instance, that of rare classes, or of examples that a model
    has to forget. The loop computes both parts and calls ``probe.total``, which returns
    the loss that the pass is for; a pass without this call is refused. Multiply each
    part by its weight, if it has one. The passes are flat, flat, rest: buffers are
    those that the first one leaves, and `statistics` are those of the flat part.

    Example:
        >>> import torch, flatmin
        >>> from torch.nn.functional import cross_entropy
        >>> model = torch.nn.Linear(4, 3)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.part_sam(base, model)
        >>> x, y = torch.randn(32, 4), torch.randint(3, (32,))
        >>> rare = y == 2
        >>> for probe in optimizer.probes():
        ...     losses = cross_entropy(model(x), y, reduction="none")
        ...     loss = probe.total(
        ...         flat=(losses * rare).mean(), rest=(losses * ~rare).mean()
        ...     )
        ...     loss.backward()
        >>> optimizer.step()

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 is SAM's. For unlearning, Fan et al. (ICML 2025,
            arXiv:2502.05374) have 0.01.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Zhou, Qu, Xu, Shen. ImbSAM: A Closer Look at Sharpness-Aware
    Minimization in Class-Imbalanced Recognition. ICCV 2023, arXiv:2308.07815.
    """
    return SAM(base, model, rho=rho, method=OnPart(), **options)

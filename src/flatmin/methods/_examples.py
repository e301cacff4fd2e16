"""Methods whose passes see a part of the batch."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from flatmin.core import radii
from flatmin.core.examples import HighestLoss, HighestRise, Matched
from flatmin.core.noise import SplitNoise
from flatmin.optim import SAM, Options
from flatmin.optim._foreign import explained


@explained
def matched_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    share: float = 0.25,
    decay: float = 0.9,
    **options: Unpack[Options],
) -> SAM:
    r"""Climb with a part of the batch, at a radius that matches its gradient's length.

    .. math::
        \rho_A = \rho \; \overline{\|g_A\| / \|g_\epsilon\|}

    The gradient :math:`g_A` of fewer examples is longer, but the part of it that it has
    in common with the batch is shorter. `subset_sam` takes the factor for pure noise,
    :math:`1 / \sqrt{\mathrm{share}}`; this method begins there and goes on with a
    running mean of the ratios that it measures. The loop takes its part with
    ``x, y = probe.take(x, y)``: the first examples, so batches have to be shuffled. The
    host waits for a number per step, and replicas share it. ``decay=1`` is
    `subset_sam`.

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.matched_sam(base, model)
        >>> batch = torch.randn(32, 4), torch.randint(2, (32,))
        >>> for probe in optimizer.probes():
        ...     x, y = probe.take(*batch)
        ...     torch.nn.functional.cross_entropy(model(x), y).backward()
        >>> optimizer.step()

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 is SAM's.
        share: of the batch, above 0; a step costs ``1 + share`` gradients. 0.25 and
            decay 0.9 are our choice.
        decay: of the running mean, from 0 to 1.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.
    """
    return SAM(
        base,
        model,
        rho=rho,
        method=Matched(share, decay),
        **options,
    )


@explained
def k_sam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    share: float = 0.5,
    **options: Unpack[Options],
) -> SAM:
    r"""K-SAM: take both gradients from the examples with the highest losses.

    .. math::
        g = \nabla L_M(w), \qquad g_\epsilon = \nabla L_M(w + \hat\epsilon), \qquad
        M = \text{the } k \text{ examples of highest loss at } w

    The first pass is a forward pass alone, over the whole batch. The loop gives each
    example's loss to the probe. Each process chooses among its own examples.
    ``share=1`` is SAM, at the price of one forward pass more.

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.k_sam(base, model)
        >>> each = torch.nn.CrossEntropyLoss(reduction="none")
        >>> x, y = torch.randn(32, 4), torch.randint(2, (32,))
        >>> for probe in optimizer.probes():
        ...     inputs, targets = probe.take(x, y)
        ...     probe.backward(each(model(inputs), targets))
        >>> optimizer.step()

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05 is SAM's.
        share: of the batch, above 0; a step costs a forward pass and twice the share.
            0.5 is our choice, without a source.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Ni, Chiang, Geiping, Goldblum, Wilson, Goldstein. K-SAM: Sharpness-Aware
    Minimization at the Speed of SGD. 2022, arXiv:2210.12864.
    """
    return SAM(base, model, rho=rho, method=HighestLoss(share), **options)


@explained
def esam(
    base: Optimizer,
    model: nn.Module,
    *,
    rho: float = 0.05,
    beta: float = 0.6,
    gamma: float = 0.5,
    **options: Unpack[Options],
) -> SAM:
    r"""Efficient SAM: perturb some tensors; descend only examples whose loss rises.

    .. math::
        \hat\epsilon = \frac{\rho}{\beta} \frac{b g}{\|b g\|}, \qquad
        g_\epsilon = \nabla L_M(w + \hat\epsilon)

    with a coin b for each tensor that shows 1 with probability :math:`\beta`, and M the
    share :math:`\gamma` of the batch whose losses rise most from w to
    :math:`w + \hat\epsilon`. The loop is that of `k_sam`. ``beta = gamma = 1`` is SAM.

    Differs from the paper: there is one coin per tensor, and the norm is that of the
    tensors that move, as in the authors' code; the paper has one coin per weight. The
    authors' code takes one example less than the share.

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        rho: the radius; 0.05, beta 0.6 and gamma 0.5 are the authors' for ResNet-18.
        beta: the probability that a tensor moves, above 0.
        gamma: the share of the batch, above 0; a step costs one gradient, a forward
            pass and this share of a gradient. With 1 there is no forward pass.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Reference: Du, Yan, Feng, Zhou, Zhen, Goh, Tan. Efficient Sharpness-aware
    Minimization for Improved Training of Neural Networks. ICLR 2022, arXiv:2110.03141.
    """
    return SAM(base, model, rho=rho, method=HighestRise(beta, gamma), **options)


@explained
def split_rwp(
    base: Optimizer,
    model: nn.Module,
    *,
    steps: int,
    rho: float = 0.015,
    mix: float = 0.5,
    **options: Unpack[Options],
) -> SAM:
    r"""Perturb the second half of the batch at random; one gradient per step.

    .. math::
        \hat\epsilon_{ij} \sim N(0, \sigma_t^2 \|w_{i,:}\|_2^2), \qquad
        \sigma_t = \rho \, \frac{1 - \cos(\pi t / T)}{2}

    in every filter i; a vector counts as one. The base descends
    :math:`\mathrm{mix} \, g + (1 - \mathrm{mix}) \, g_\epsilon` with g of the first
    half of the batch at w and :math:`g_\epsilon` of the second half at
    :math:`w + \hat\epsilon`. The loop takes them with ``x, y = probe.take(x, y)``. The
    noise is a function of the step: alike in all processes, in micro-batches, and in a
    resumed run.

    Differs from the paper: there both gradients are those of whole batches, on two
    devices at the same time.

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.split_rwp(base, model, steps=100)
        >>> batch = torch.randn(32, 4), torch.randint(2, (32,))
        >>> for probe in optimizer.probes():
        ...     x, y = probe.take(*batch)
        ...     torch.nn.functional.cross_entropy(model(x), y).backward()
        >>> optimizer.step()

    Args:
        base: a built optimizer.
        model: the module that the loop runs.
        steps: T, of the whole training; the noise grows until its end.
        rho: the deviation of the noise in the end, relative to the norm of each
            filter; 0.015 is that of the authors' code.
        mix: the weight of the gradient at w; 0.5 is the paper's.
        options: passed on to `flatmin.SAM`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range; or, in a step, a batch has one example.

    Reference: Li et al. Revisiting Random Weight Perturbation for
    Efficiently Improving Generalization. TMLR 2024, arXiv:2404.00357.
    """
    method = SplitNoise(radii.cosine(0.0, 1.0, steps), mix)
    return SAM(base, model, rho=rho, method=method, **options)

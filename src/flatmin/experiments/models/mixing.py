"""Layers that multiply by random numbers, which differ in forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Mixing(nn.Module):
    """The common base of Shake-Shake and ShakeDrop.

    Attributes:
        true_gradient: whether the backward pass uses the numbers of the forward pass,
            so that the gradient is that of the computed loss. False outside of a block
            of `true_gradient`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.true_gradient = False

    def draw(self, x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw a uniform number for each image, ``[n, 1, 1, 1]``, always float32.

        The numbers come from torch's own generator of the device, which SAM's passes
        replay. A layer draws them even if it does not use them, so that the draws of
        later layers do not depend on ``true_gradient``.
        """
        numbers = torch.empty(len(x), 1, 1, 1, dtype=torch.float32, device=x.device)
        return numbers.uniform_(low, high)

    def scaled(self, x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        """Return ``forward * x``, differentiated as if it were ``backward * x``."""
        forward, backward = forward.to(x.dtype), backward.to(x.dtype)
        if self.true_gradient:
            return forward * x
        still = x.detach()
        return forward * still + backward * (x - still)


@contextmanager
def true_gradient(model: nn.Module, when: bool = True) -> Iterator[None]:
    """Let mixing layers have the gradient of the computed loss within the block.

    SAM climbs along the gradient of the loss. Shake-Shake and ShakeDrop regularise by
    replacing this gradient with a random one, which need not point uphill. The SAM code
    therefore switches the replacement off in the ascent pass and keeps it in the other.
    Backward belongs into the block as well if activations are recomputed. Networks
    without such layers are left alone.

    A step of radius zero has only a pass at ``w``, which does not climb. Neither do
    steps that a method takes without a perturbation.

    Args:
        model: the network, wrapped or not.
        when: False does nothing.

    Example:
        >>> import torch, flatmin
        >>> from flatmin.experiments.models import shake_shake, true_gradient
        >>> model = shake_shake(8, 4, classes=3)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.SAM(sgd, model, rho=0.02)
        >>> x = torch.randn(2, 3, 8, 8)
        >>> for probe in optimizer.probes():
        ...     with true_gradient(model, when=probe.climbs):
        ...         model(x).square().sum().backward()
        >>> optimizer.step()

    Reference: https://github.com/google-research/sam, ``flax_training.py``.
    """
    layers = [m for m in model.modules() if isinstance(m, Mixing)] if when else []
    before = [layer.true_gradient for layer in layers]
    try:
        for layer in layers:
            layer.true_gradient = True
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.true_gradient = was

"""SAMformer: attention between the channels of a series, and a linear forecast.

Reference: Ilbert, Odonnat, Feofanov, Virmaux, Paolo, Palpanas, Redko. SAMformer:
Unlocking the Potential of Transformers in Time Series Forecasting with Sharpness-Aware
Minimization and Channel-Wise Attention. ICML 2024, arXiv:2402.10198. The normalisation
is RevIN: Kim et al. Reversible Instance Normalization. ICLR 2022.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

#: Added to the variance of a window, because a channel may be constant.
_EPS = 1e-5


class RevIN(nn.Module):
    r"""Remove each window's own mean and deviation, and restore them in the forecast.

    .. math::
        z = \gamma \frac{x - \mu(x)}{\sqrt{\sigma^2(x) + 10^{-5}}} + \beta

    ``mu`` and ``sigma`` are those of each channel of each window, over time, and no
    gradient passes through them. ``gamma`` and ``beta``, one number per channel, are
    trained.

    Args:
        channels: of the windows.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalise windows ``[n, channels, time]``.

        Returns:
            The windows, and what `inverse` needs: mean and deviation
            ``[n, channels, 1]``.
        """
        variance, mean = torch.var_mean(x.detach(), -1, correction=0, keepdim=True)
        std = (variance + _EPS).sqrt()
        return (x - mean) / std * self.weight + self.bias, mean, std

    def inverse(self, z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Return normalised windows to their original scale."""
        return (z - self.bias) / self.weight * std + mean


class SAMformer(nn.Module):
    r"""One layer of attention between channels, and one linear layer over time.

    .. math::
        A = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{\text{width}}}\right), \qquad
        \hat y = W_o (x + A V) + b_o

    ``x`` are the windows after `RevIN`, whose inverse is applied to the forecast.
    Queries, keys and values are linear in the past of a channel, so that ``A`` is
    ``[channels, channels]``. The values keep the length of the window, as in the
    authors' code for PyTorch. Initial weights are torch's.

    Args:
        channels: of the series.
        horizon: steps that are forecast.
        lookback: steps that are shown.
        width: of queries and keys.

    Example:
        >>> import torch
        >>> from flatmin.experiments.models import SAMformer
        >>> SAMformer(channels=7, horizon=96)(torch.randn(2, 7, 512)).shape
        torch.Size([2, 7, 96])
    """

    def __init__(
        self, channels: int, horizon: int, lookback: int = 512, width: int = 16
    ) -> None:
        super().__init__()
        self.norm = RevIN(channels)
        self.queries = nn.Linear(lookback, width)
        self.keys = nn.Linear(lookback, width)
        self.values = nn.Linear(lookback, lookback)
        self.head = nn.Linear(lookback, horizon)

    def forward(self, x: Tensor) -> Tensor:
        """Map windows ``[n, channels, lookback]`` to ``[n, channels, horizon]``."""
        z, mean, std = self.norm(x)
        q, k, v = self.queries(z), self.keys(z), self.values(z)
        # Written out, because torch's fused attention has no second derivative.
        attention = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        return self.norm.inverse(self.head(z + attention @ v), mean, std)


def samformer(
    classes: int, channels: int, lookback: int = 512, width: int = 16
) -> SAMformer:
    """Build the network with the arguments of `flatmin.experiments.models.build`.

    Args:
        classes: length of the output rows, which is the horizon.
        channels: of the series.
        lookback: steps that are shown.
        width: of queries and keys.
    """
    return SAMformer(channels, classes, lookback, width)

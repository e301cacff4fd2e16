"""The embedded digits, as a network gets them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from flatmin.experiments.datasets import Tensors, load


def digits() -> tuple[Tensor, Tensor]:
    """Return the 900 training images ``[900, 1, 8, 8]``, standardised, and labels."""
    data = load("digits", Path())
    assert isinstance(data.train, Tensors)
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.mean, data.std))
    return (data.train.x.float() / 255 - mean) / std, data.train.y

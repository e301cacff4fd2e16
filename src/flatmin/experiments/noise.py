"""Label noise."""

from __future__ import annotations

import torch
from torch import Tensor


def flip_labels(
    y: Tensor, share: float, classes: int, seed: int, *, true_class: bool = False
) -> Tensor:
    """Symmetric label noise: ``share`` of the labels are drawn anew.

    Exactly ``round(share * n)`` labels are drawn, all classes being equally likely. The
    examples whose labels are drawn depend on seed and n alone. The SAM paper does not
    say which of the two kinds its Table 4 has; at share 0.8 and 10 classes, 20 % of the
    labels remain right without the true class and 28 % with it.

    Args:
        y: labels ``[n]``, int64, from 0 to ``classes - 1``, on the CPU.
        share: of the labels that are drawn, from 0 to 1.
        classes: how many there are.
        seed: of the draws.
        true_class: whether the class that a label had can be drawn. If not, each drawn
            label is a wrong one; if so, one in ``classes`` is right, and ``share``
            is more than the share of wrong labels.

    Returns:
        New labels ``[n]``.

    Raises:
        ValueError: ``share`` is not between 0 and 1.

    Example:
        >>> import torch
        >>> from flatmin.experiments.noise import flip_labels
        >>> y = torch.zeros(100, dtype=torch.int64)
        >>> flip_labels(y, 0.4, classes=10, seed=0).count_nonzero()
        tensor(40)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share of label noise must be in [0, 1], got {share}.")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(y), generator=generator)[: round(share * len(y))]
    least = 0 if true_class else 1
    shift = torch.randint(least, classes, (len(drawn),), generator=generator)
    noisy = y.clone()
    noisy[drawn] = (y[drawn] + shift) % classes
    return noisy

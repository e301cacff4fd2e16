"""The loss around a minimum, on a plane of filter-normalised directions.

Reference: Li, Xu, Taylor, Studer, Goldstein. Visualizing the Loss Landscape of Neural
Nets. NeurIPS 2018, arXiv:1712.09913.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

#: Half the side of the plane: 1 moves every filter by its own norm.
RADIUS = 1.0


def axis(points: int) -> list[float]:
    """The coordinates along one axis, 0 among them if ``points`` is odd."""
    return torch.linspace(-RADIUS, RADIUS, points).tolist()


@torch.no_grad()
def landscape(
    model: nn.Module, x: Tensor, y: Tensor, points: int, seed: int = 0
) -> list[list[float]]:
    """Mean cross-entropy at ``w + a u + b v``, ``points`` x ``points`` of them.

    ``u`` and ``v`` are Gaussian; each filter of them (a slice along the first axis) is
    scaled to the norm of that filter of ``w``. Biases and norm layers stay, so that
    two networks can be compared although their scales differ. The same ``seed`` gives
    two networks of one architecture the same draws.

    Args:
        model: evaluated with BatchNorm's running statistics; unchanged afterwards.
        x: inputs ``[n, ...]``.
        y: labels ``[n]``.
        points: along each axis.
        seed: of the directions.

    Returns:
        Rows of losses: the row is the coordinate along ``v``.
    """
    model.eval()
    w = [p for p in model.parameters() if p.dim() > 1]
    centre = [p.clone() for p in w]
    generator = torch.Generator().manual_seed(seed)
    u = [_direction(p, generator) for p in w]
    v = [_direction(p, generator) for p in w]
    try:
        return [
            [_loss_at(model, w, centre, u, v, a, b, x, y) for a in axis(points)]
            for b in axis(points)
        ]
    finally:
        for p, c in zip(w, centre, strict=True):
            p.copy_(c)


def _loss_at(
    model: nn.Module,
    w: list[nn.Parameter],
    centre: list[Tensor],
    u: list[Tensor],
    v: list[Tensor],
    a: float,
    b: float,
    x: Tensor,
    y: Tensor,
) -> float:
    for p, c, du, dv in zip(w, centre, u, v, strict=True):
        p.copy_(c + a * du + b * dv)
    total = sum(
        cross_entropy(model(part), labels, reduction="sum")
        for part, labels in zip(x.split(1024), y.split(1024), strict=True)
    )
    return float(total) / len(y)


def _direction(w: Tensor, generator: torch.Generator) -> Tensor:
    d = torch.randn(w.shape, generator=generator).to(w)
    size = d.flatten(1).norm(dim=1), w.flatten(1).norm(dim=1)
    scale = size[1] / size[0].clamp_min(1e-12)
    return d * scale.view(-1, *[1] * (w.dim() - 1))

"""What the metric tests share: draws, and norms that no power overflows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from flatmin.core import Ascent, LpBall

EVERY_P = [1.0, 1.0001, 1.01, 1.5, 2.0, 3.0, 50.0, 1e6, math.inf]

p_values = st.sampled_from(EVERY_P) | st.floats(1, 100)
radii = st.floats(1e-3, 1e3)

#: No denormals: a gradient entry is 0 or of a size that squares in float32.
entries = st.just(0.0) | st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3)


def vectors(least: int = 1, most: int = 8) -> st.SearchStrategy[list[float]]:
    some = st.lists(entries, min_size=least, max_size=most)
    return some.filter(any)


def climb(p: float, g: Sequence[Tensor], rho: float = 0.05) -> Ascent:
    """`LpBall` with one radius for all of ``g``."""
    return LpBall(p)([*g], [*g], [rho] * len(g), [0] * len(g))


def flat(parts: Sequence[Tensor | None]) -> Tensor:
    """All entries in one float64 vector."""
    return torch.cat([t.double().flatten() for t in parts if t is not None])


def lp_norm(x: Tensor, p: float) -> float:
    top = x.abs().max()
    if top == 0 or math.isinf(p):
        return top.item()
    return (top * ((x.abs() / top) ** p).sum() ** (1 / p)).item()


def dual(p: float) -> float:
    if p == 1:
        return math.inf
    return 1.0 if math.isinf(p) else p / (p - 1)

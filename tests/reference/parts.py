"""Losses that differ from pass to pass, as the papers print it.

Zhou, Qu, Xu, Shen. ImbSAM. ICCV 2023, arXiv:2308.07815: the tail classes are the part.
Fan et al. Towards LLM Unlearning Resilient to Relearning Attacks. ICML 2025,
arXiv:2502.05374: what is to be forgotten is the part, and both have weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[[list[Tensor]], Tensor]
Base = Callable[[list[Tensor], list[Tensor]], list[Tensor]]


def slope(loss: Loss, w: list[Tensor]) -> list[Tensor]:
    at = [t.detach().requires_grad_() for t in w]
    return list(torch.autograd.grad(loss(at), at))


def uphill(g: list[Tensor], rho: float) -> list[Tensor]:
    length = torch.cat([t.flatten() for t in g]).norm()
    return [rho * t / length for t in g]


def imb_sam(
    head: Sequence[Loss], tail: Sequence[Loss], w: list[Tensor], base: Base, rho: float
) -> list[Tensor]:
    """``grad L_head(w) + grad L_tail(w + rho grad L_tail(w) / ||grad L_tail(w)||)``."""
    for most, few in zip(head, tail, strict=True):
        eps = uphill(slope(few, w), rho)
        above = [t + e for t, e in zip(w, eps, strict=True)]
        both = zip(slope(most, w), slope(few, above), strict=True)
        w = base(w, [a + b for a, b in both])
    return w


def unlearning(
    forget: Sequence[Loss],
    retain: Sequence[Loss],
    w: list[Tensor],
    base: Base,
    *,
    rho: float,
    c_f: float,
    c_r: float,
) -> list[Tensor]:
    """``c_f grad L_forget(w + eps_f) + c_r grad L_retain(w)``."""
    for lose, hold in zip(forget, retain, strict=True):
        eps = uphill(slope(lose, w), rho)
        above = [t + e for t, e in zip(w, eps, strict=True)]
        both = zip(slope(lose, above), slope(hold, w), strict=True)
        w = base(w, [c_f * a + c_r * b for a, b in both])
    return w


def functional_sam(
    outputs: Callable[[list[Tensor]], Tensor],
    loss: Callable[[Tensor], Tensor],
    w: list[Tensor],
    rho: float,
) -> list[Tensor]:
    """``J(w + eps)^T dL/dz(w)``, arXiv:2502.02407."""
    z = outputs(w).detach().requires_grad_()
    [v] = torch.autograd.grad(loss(z), z)
    eps = uphill(slope(lambda at: loss(outputs(at)), w), rho)
    above = [(t + e).detach().requires_grad_() for t, e in zip(w, eps, strict=True)]
    return list(torch.autograd.grad(outputs(above), above, grad_outputs=v))

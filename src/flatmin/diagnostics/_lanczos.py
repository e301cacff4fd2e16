"""Krylov spaces of a symmetric operator, without restarts.

Every product with the Hessian takes several passes over the data, so the number of
products decides the cost. From one start, no method finds the largest eigenvalue with
fewer products than one that keeps the whole Krylov space, as is done here. The space is
orthogonalised in full, so that no eigenvalue appears twice by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from flatmin.core import _tensors as ts

#: Products before an eigenvalue may count as converged. Where most eigenvalues are
#: alike, a random start is nearly an eigenvector of theirs, and one product would show
#: nothing else. Each product more multiplies the part of what stands out.
_FEW = 5

Product: TypeAlias = Callable[[Tensor], Tensor]

#: Not annotated in torch.
_eigh: Any = torch.linalg.eigh  # pyright: ignore


@dataclass(frozen=True, slots=True)
class Pair:
    """An eigenvalue, how far it may be off, and its vector."""

    value: float
    residual: float
    vector: Tensor


@dataclass(slots=True)
class Space:
    """A Krylov space of an operator.

    Attributes:
        basis: orthonormal vectors; the last is the next to be multiplied.
        alphas: the diagonal of the operator in this basis.
        betas: its side diagonal; the last one couples the space to what is outside.
    """

    basis: list[Tensor]
    alphas: list[float]
    betas: list[float]

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and vectors of the operator within the space, ascending."""
        here: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
        t = torch.diag(torch.tensor(self.alphas, **here))
        side = torch.tensor(self.betas[:-1], **here)
        return _eigh(t + torch.diag(side, 1) + torch.diag(side, -1))

    def pair(self, value: Tensor, weights: Tensor, floor: float) -> Pair:
        """An eigenvalue in the space, as a pair of the whole operator."""
        x = torch.zeros_like(self.basis[0])
        for c, q in zip(weights, self.basis, strict=True):
            x.add_(q, alpha=float(c))
        residual = max(self.betas[-1] * abs(float(weights[-1])), floor)
        return Pair(float(value), residual, x)


def spaces(
    product: Product, start: Tensor, draw: torch.Generator, beside: Sequence[Tensor]
) -> Iterator[Space]:
    """Yield the Krylov space after every product, until it is the whole space.

    Args:
        product: applies the operator to a vector.
        start: any vector.
        draw: gives another start where a space is closed under the operator.
        beside: orthonormal vectors; the space is orthogonal to them.
    """
    space = Space([], [], [])
    scale, tiny = 0.0, 10 * torch.finfo(start.dtype).eps
    q = _unit(start, beside)
    while True:
        space.basis.append(q)
        u = product(q)
        space.alphas.append(float(q.double() @ u.double()))
        u = _across(u, [*beside, *space.basis])
        beta = float(ts.norm([u]))
        scale = max(scale, abs(space.alphas[-1]), beta)
        full = len(beside) + len(space.basis) == start.numel()
        closed = full or beta <= tiny * scale
        space.betas.append(0.0 if closed else beta)
        yield space
        if full:
            return
        others = [*beside, *space.basis]
        q = _unit(normal(start, draw), others) if closed else u / beta


def largest(
    product: Product, like: Tensor, k: int, tol: float, most: int, seed: int
) -> list[Pair]:
    """The k largest eigenvalues, each as often as it occurs.

    A Krylov space holds each eigenvalue once. So for k > 1 another space is built,
    orthogonal to the vectors found, until one has nothing above the k-th.

    Raises:
        RuntimeError: ``most`` products are not enough.
    """
    draw = torch.Generator().manual_seed(seed)
    found: list[Pair] = []
    spent = 0
    while len(found) < like.numel():
        need = 1 if len(found) == k else k
        beside = [pair.vector for pair in found]
        new, products = _converged(product, like, need, tol, most - spent, draw, beside)
        spent += products
        full = len(found) == k
        last = found[-1].value if full else -torch.inf
        found = sorted([*found, *new], key=lambda pair: -pair.value)[:k]
        if k == 1 or (full and new[0].value <= last + tol * abs(last)):
            break
    return found


def normal(like: Tensor, draw: torch.Generator) -> Tensor:
    """A normal vector, drawn on the CPU: alike on every device."""
    # Named, because another device may be the default.
    v = torch.randn(like.shape, generator=draw, dtype=like.dtype, device="cpu")
    return v.to(like.device)


def _converged(
    product: Product,
    like: Tensor,
    need: int,
    tol: float,
    most: int,
    draw: torch.Generator,
    beside: Sequence[Tensor],
) -> tuple[list[Pair], int]:
    """The largest pairs beside the given vectors, and how many products they took."""
    room = like.numel() - len(beside)
    need = min(need, room)
    few = min(max(need, _FEW), room)
    grown = spaces(product, normal(like, draw), draw, beside)
    while True:
        space = next(grown)
        count = len(space.alphas)
        values, weights = space.ritz()
        floor = 10 * torch.finfo(like.dtype).eps * float(values.abs().max())
        residuals = space.betas[-1] * weights[-1].abs()
        fine = residuals <= torch.clamp(tol * values.abs(), min=floor)
        if count >= few and bool(fine[-need:].all()):
            best = range(count - 1, count - 1 - need, -1)
            return [space.pair(values[i], weights[:, i], floor) for i in best], count
        if count >= most:
            raise RuntimeError(
                f"{need} eigenvalues have not converged to a relative residual of "
                f"{tol:g} with the {most} products left: it is "
                f"{float((residuals / values.abs())[-need:].max()):.1e}. Give a larger "
                "tol or more products."
            )


def _unit(v: Tensor, others: Sequence[Tensor]) -> Tensor:
    """``v`` of length 1, orthogonal to the others."""
    v = _across(v / ts.norm([v]), others)
    return v / ts.norm([v])


def _across(v: Tensor, others: Sequence[Tensor]) -> Tensor:
    """``v`` without its parts along the others; twice, because of rounding."""
    v = v.clone()
    for _ in range(2):
        for q in others:
            v.sub_(q * (q @ v))
    return v

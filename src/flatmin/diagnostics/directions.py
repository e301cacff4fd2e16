r"""Directions in weight space: what lines and planes of losses are laid along.

A direction is a list of tensors, one per entry of `Objective.w`, of its shape. Any such
list will do; this module makes the usual ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from flatmin.core import _tensors as ts
from flatmin.core.filters import NORMS
from flatmin.diagnostics._objective import Objective
from flatmin.diagnostics.hessian import eigenvalues

__all__ = [
    "Basis",
    "between",
    "eigenvectors",
    "orthonormal",
    "random",
    "through",
    "trajectory_pca",
]

#: One tensor per entry of `Objective.w`.
Direction: TypeAlias = list[Tensor]

# The weights of another model of the same architecture: a state dict, the model itself,
# or one tensor per entry of `Objective.w`.
Weights: TypeAlias = Mapping[str, Tensor] | nn.Module | Iterable[Tensor]

#: How wrappers (DataParallel, torch.compile) call the model inside.
_WRAPPERS = ("module.", "_orig_mod.")

#: Not annotated in torch.
_linalg: Any = torch.linalg

#: Below this share of its length, what is left of a vector is rounding.
_PARALLEL = 1e-6


@dataclass(frozen=True, slots=True)
class Basis:
    """Two orthonormal directions, and where given models lie along them.

    Attributes:
        u: the first direction.
        v: the second one.
        coordinates: of each model, along ``u`` and ``v``; the objective's weights are
            the origin.
        shares: of the models' variance that lies along ``u`` and along ``v``; None
            where the plane holds them all.
    """

    u: Direction
    v: Direction
    coordinates: tuple[tuple[float, float], ...]
    shares: tuple[float, float] | None = None


def random(objective: Objective, seed: int, *, by_filter: bool = True) -> Direction:
    r"""A Gaussian direction, filter by filter as long as the weights.

    .. math::
        d_{ij} \leftarrow \frac{d_{ij}}{\|d_{ij}\|} \|w_{ij}\|

    Filter ``j`` of tensor ``i`` is a slice along the first axis of a weight with at
    least two. Biases, other weights of one axis and norm layers stay where they are.
    Two networks that differ in the scale of their filters alone are thereby given
    directions that differ in the same scale, and can be compared.

    Args:
        objective: whose weights.
        seed: of the draws, which are made on the CPU in float64: two networks of one
            architecture are given the same ones, whatever their dtype and device.
        by_filter: False leaves the draws as they are, of standard deviation 1.

    Returns:
        One tensor per entry of ``objective.w``, in its dtype; zeros where nothing
        moves.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Objective, directions
        >>> model = torch.nn.Linear(4, 2)
        >>> data = [(torch.randn(8, 4), torch.randn(8, 2))]
        >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
        >>> u, still = directions.random(objective, seed=0)
        >>> torch.allclose(u.norm(dim=1), model.weight.norm(dim=1))
        True
        >>> still
        tensor([0., 0.])

    Reference:
        Li, Xu, Taylor, Studer, Goldstein. Visualizing the Loss Landscape of Neural
        Nets. NeurIPS 2018, arXiv:1712.09913.
    """
    draw = torch.Generator().manual_seed(seed)
    still = {
        id(p)
        for module in objective.model.modules()
        if isinstance(module, NORMS)
        for p in module.parameters(recurse=False)
    }
    return [
        torch.zeros_like(p)
        if p.dim() < 2 or id(p) in still
        else _drawn(p.detach(), draw, by_filter)
        for p in objective.w
    ]


def between(objective: Objective, other: Weights) -> Direction:
    """From the objective's weights to those of another model: ``w' - w``.

    The other one, of the same architecture, is given as a state dict, as the model
    itself, or as one tensor per entry of ``objective.w``. Names may differ by what
    DataParallel and torch.compile put in front of them.

    On a line along it, 0 is the objective's model and 1 the other one. Only weights are
    moved: where the two have BatchNorm, the statistics of the one do not fit the other,
    and the line has to recalibrate them.

    Raises:
        ValueError: the other model lacks a weight, or has one of another shape; or it
            differs in a weight that does not move, so that the line would not end at
            it.
    """
    pairs = zip(_weights(objective, other), objective.w, strict=True)
    return [x - p.detach() for x, p in pairs]


def eigenvectors(
    objective: Objective, k: int = 2, *, tol: float = 1e-3, seed: int = 0
) -> list[Direction]:
    r"""Directions in which the loss curves upwards most: eigenvectors of the Hessian.

    .. math::
        H x_i = \lambda_i x_i, \qquad \lambda_1 \ge \dots \ge \lambda_k, \qquad
        \|x_i\| = 1

    They are at right angles, and of length 1, whatever the length of the weights: the
    coordinates of a line along one are distances in weight space. Which of ``x`` and
    ``-x`` is returned depends on the seed, and means nothing.

    Args:
        objective: whose Hessian.
        k: how many.
        tol: residuals are at most so much times the eigenvalue.
        seed: of the random start, which is alike on every device and in every process.

    Returns:
        ``k`` directions in the dtypes of ``objective.w``, the steepest first.

    Raises:
        ValueError: k or tol is out of range.
        RuntimeError: no convergence.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Objective, directions
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double()  # H = 2 X'X / n
        >>> data = [(x, torch.zeros(2, 1).double())]
        >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
        >>> [[u], [v]] = directions.eigenvectors(objective)
        >>> (u.abs().round(decimals=6).tolist(), v.abs().round(decimals=6).tolist())
        ([[1.0, 0.0]], [[0.0, 1.0]])
    """
    found = eigenvalues(objective, k, tol=tol, vectors=True, seed=seed)
    return [list(vector) for vector in found.vectors or ()]


def through(objective: Objective, first: Weights, second: Weights) -> Basis:
    """The plane through three models: the objective's, and two others.

    Returns:
        Orthonormal directions, and the coordinates of ``first`` and ``second``.

    Raises:
        ValueError: the three lie on a line, or are not of one architecture.
    """
    ahead, aside = between(objective, first), between(objective, second)
    u, v = orthonormal(ahead, aside)
    return Basis(u, v, tuple(_along(d, u, v) for d in (ahead, aside)))


def orthonormal(
    u: Sequence[Tensor], v: Sequence[Tensor]
) -> tuple[Direction, Direction]:
    """Two directions of length 1 at right angles, in the plane of ``u`` and ``v``.

    Raises:
        ValueError: ``u`` or ``v`` is zero, or they are parallel.
    """
    length = ts.norm(v)
    u = _unit(u, ts.norm(u))
    # Twice is enough: the first pass leaves only its rounding errors of u in v.
    for _ in range(2):
        shadow = ts.times(u, ts.dot(u, v))
        v = [x - y for x, y in zip(v, shadow, strict=True)]
    if not ts.norm(v) > _PARALLEL * length:
        raise ValueError(
            "the two directions are parallel, so they span a line and no plane. Choose "
            "another one."
        )
    return u, _unit(v, ts.norm(v))


def trajectory_pca(objective: Objective, states: Iterable[Weights]) -> Basis:
    r"""The two principal components of the weights that a training run went through.

    The ``T`` differences to the objective's weights are centred, and the ``T x T``
    matrix of their inner products is diagonalised in float64. Nothing of the size
    weights x weights is formed.

    Args:
        objective: whose weights are the origin, usually those at the end.
        states: at least three, all of one architecture.

    Returns:
        Orthonormal directions, the coordinates of each state, and the shares of the
        variance along the two.

    Raises:
        ValueError: there are too few states, or they lie on a line.
    """
    states = list(states)
    if len(states) < 3:
        raise ValueError(
            f"two principal components need at least 3 states, got {len(states)}."
        )
    steps = [between(objective, state) for state in states]
    inner = _inner(steps)
    centre = torch.eye(len(steps), device="cpu").to(inner) - 1 / len(steps)
    values: Tensor
    vectors: Tensor
    values, vectors = _linalg.eigh(centre @ inner @ centre)
    if not values[-2] > _PARALLEL**2 * values[-1]:
        raise ValueError(
            "the states lie on a line, so there is no second principal component."
        )
    main = [_sum(centre @ vectors[:, -k], steps) for k in (1, 2)]
    u, v = orthonormal(*main)
    whole = values.clamp_min(0).sum()
    shares = float(values[-1] / whole), float(values[-2] / whole)
    return Basis(u, v, tuple(_along(step, u, v) for step in steps), shares)


def _drawn(w: Tensor, draw: torch.Generator, by_filter: bool) -> Tensor:
    dtype = torch.complex128 if w.is_complex() else torch.float64
    d = torch.randn(w.shape, generator=draw, dtype=dtype, device="cpu").to(w)
    if not by_filter:
        return d
    axes = tuple(range(1, w.dim()))
    own: Tensor = _linalg.vector_norm(w, dim=axes, keepdim=True)
    length: Tensor = _linalg.vector_norm(d, dim=axes, keepdim=True)
    return d * (own / length)


def _weights(objective: Objective, other: Weights) -> list[Tensor]:
    """The other model's tensors in the order, dtypes and devices of the objective's."""
    if isinstance(other, nn.Module):
        other = dict(other.named_parameters())
    if not isinstance(other, Mapping):
        return checked(objective, other, "the other model's weights")
    other = cast("Mapping[str, Tensor]", other)
    ours = _bare(dict(objective.model.named_parameters()))
    theirs = _bare(other)
    names = {id(p): name for name, p in ours.items()}
    lacking = [name for p in objective.w if (name := names[id(p)]) not in theirs]
    if lacking:
        raise ValueError(
            f"the other model has no {', '.join(lacking)}. Give the state dict of "
            "a model of the same architecture."
        )
    _check_frozen(ours, theirs)
    moved = [theirs[names[id(p)]] for p in objective.w]
    return checked(objective, moved, "the other model's weights")


def _bare(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names that the model inside of wrappers has."""
    found = dict(named)
    for wrapper in _wrappers_of(found):
        found = {name.removeprefix(wrapper): x for name, x in found.items()}
    return found


def _wrappers_of(named: Mapping[str, Tensor]) -> list[str]:
    """What all names begin with, the outermost wrapper first."""
    names, found = list(named), list[str]()
    while names and (first := names[0].split(".")[0] + ".") in _WRAPPERS:
        if not all(name.startswith(first) for name in names):
            break
        found.append(first)
        names = [name.removeprefix(first) for name in names]
    return found


def _check_frozen(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Refuse weights that differ and do not move.

    Raises:
        ValueError: there are some.
    """
    differ = [
        name
        for name, p in ours.items()
        if not p.requires_grad and name in theirs and not _same(p, theirs[name])
    ]
    if differ:
        raise ValueError(
            f"the other model differs in {', '.join(differ)}, frozen here, so that no "
            "direction leads to it. Call model.requires_grad_(True) before you build "
            "the Objective."
        )


def _same(p: Tensor, x: Tensor) -> bool:
    return p.shape == x.shape and torch.equal(p.detach(), x.detach().to(p))


def checked(objective: Objective, given: Iterable[Tensor], what: str) -> list[Tensor]:
    """Return one tensor per entry of ``objective.w``, in its dtype, on its device.

    Raises:
        ValueError: more or fewer tensors are given, or one has another shape.
    """
    given = list(given)
    wanted = [tuple(p.shape) for p in objective.w]
    got = [tuple(x.shape) for x in given]
    if got != wanted:
        raise ValueError(
            f"{what} must be one tensor per parameter of Objective.w, of its shape: "
            f"{wanted}, got {got}."
        )
    return [x.detach().to(p) for x, p in zip(given, objective.w, strict=True)]


def _unit(x: Sequence[Tensor], length: Tensor) -> Direction:
    if not length > 0:
        raise ValueError("a direction is zero, or no number. Choose another one.")
    return ts.times(x, 1 / length)


def _along(d: Direction, u: Direction, v: Direction) -> tuple[float, float]:
    return float(ts.dot(d, u)), float(ts.dot(d, v))


def _inner(steps: Sequence[Direction]) -> Tensor:
    """``<step_s, step_t>``: ``[T, T]``, float64, on the CPU; tensor by tensor."""
    total = torch.zeros(len(steps), len(steps), dtype=torch.float64, device="cpu")
    for parts in zip(*steps, strict=True):
        x = torch.stack([part.reshape(-1) for part in ts.real(parts)]).double()
        total += (x @ x.T).cpu()
    return total


def _sum(shares: Tensor, steps: Sequence[Direction]) -> Direction:
    """``sum_t shares_t step_t``."""
    total = [torch.zeros_like(x) for x in steps[0]]
    for share, step in zip(shares, steps, strict=True):
        ts.add_times_(total, float(share), step)
    return total

"""Eigenvalues, trace and spectral density of the curvature at the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flatmin.core._checks import at_least, integer
from flatmin.diagnostics._lanczos import Space, largest, normal, spaces
from flatmin.diagnostics._objective import Objective
from flatmin.diagnostics._products import Curvature, Matrix
from flatmin.diagnostics._record import Measurement


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Eigenvalues(Measurement):
    """The largest eigenvalues; ``value`` is the first and ``error`` its residual.

    Attributes:
        values: descending, each as often as it occurs.
        residuals: ``||H x - lambda x||`` for unit x: an eigenvalue is at most this far
            away, and usually much nearer, at about the square of it.
        vectors: if asked for, one list of tensors like the weights per eigenvalue.
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    vectors: tuple[list[Tensor], ...] | None = None

    @property
    def ratio(self) -> float:
        """``lambda_1 / lambda_5``; NaN unless both are positive.

        Raises:
            ValueError: fewer than five eigenvalues were computed.
        """
        if len(self.values) < 5:
            raise ValueError(
                f"lambda_1 / lambda_5 needs k >= 5, got {len(self.values)} eigenvalues."
            )
        fifth = self.values[4]
        return self.value / fifth if fifth > 0 else math.nan


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SpectralDensity(Measurement):
    """How the eigenvalues are distributed; ``value`` is their mean.

    Attributes:
        nodes: where there is mass, ascending.
        weights: how much; they add up to 1.
    """

    nodes: tuple[float, ...]
    weights: tuple[float, ...]

    def smooth(self, points: int = 200, width: float | None = None) -> Any:
        """The density on a grid, each node a Gaussian.

        Args:
            points: of the grid, which covers the nodes and three widths beyond.
            width: the standard deviation; a hundredth of the range if not given.

        Returns:
            Positions and densities, two float64 tensors of so many points.
        """
        x = torch.tensor(self.nodes, dtype=torch.float64, device="cpu")
        mass = torch.tensor(self.weights, dtype=torch.float64, device="cpu")
        low, high = float(x.min()), float(x.max())
        width = width or (high - low or 1.0) / 100
        grid = torch.linspace(
            low - 3 * width,
            high + 3 * width,
            points,
            dtype=torch.float64,
            device="cpu",
        )
        bumps = torch.exp(-(((grid[:, None] - x) / width) ** 2) / 2)
        return grid, bumps @ mass / (width * math.sqrt(2 * math.pi))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Spectrum(Measurement):
    """The numbers of the paper's Figure 3; ``value`` is the largest eigenvalue.

    Attributes:
        ratio: ``lambda_1 / lambda_5``.
        eigenvalues: the five largest.
        density: of all of them.
    """

    ratio: float
    eigenvalues: Eigenvalues
    density: SpectralDensity


def eigenvalues(
    objective: Objective,
    k: int = 5,
    *,
    matrix: Matrix = "hessian",
    tol: float = 1e-3,
    most: int = 300,
    vectors: bool = False,
    seed: int = 0,
) -> Eigenvalues:
    r"""The k algebraically largest eigenvalues of the curvature of L.

    .. math::
        H x_i = \lambda_i x_i, \qquad \lambda_1 \ge \dots \ge \lambda_k

    Algebraically, because sharpness is about how steeply the loss curves upwards; the
    paper's lambda_max and lambda_5 are these. Uses Lanczos' method without restarts,
    which takes the fewest products with H, one for each of the vectors it keeps in
    memory. For k > 1 it starts again, orthogonal to what it has found, because one
    start sees an eigenvalue that occurs several times only once.

    A product takes as long as four to five gradients; lambda_max of a trained network
    takes about five products, and five eigenvalues about 30.

    Args:
        objective: the loss.
        k: how many.
        matrix: ``"hessian"``, or ``"ggn"`` for its generalised Gauss-Newton part, which
            has no negative eigenvalues (needs curvlinops).
        tol: the largest residual, relative to the eigenvalue; the relative error of the
            eigenvalue itself is usually about the square of this.
        most: products before giving up.
        vectors: whether to return the eigenvectors.
        seed: of the random start, which is alike on every device and in every process.

    Raises:
        ValueError: k or tol is out of range, or there is no such matrix.
        RuntimeError: no convergence.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Objective, eigenvalues
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double()  # H = 2 X'X / n
        >>> data = [(x, torch.zeros(2, 1).double())]
        >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
        >>> [round(value, 6) for value in eigenvalues(objective, k=2).values]
        [4.0, 1.0]

    Reference: Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for
    Efficiently Improving Generalization. ICLR 2021, arXiv:2010.01412, Figure 3.
    """
    curvature = Curvature(objective, matrix)
    _check_count(k, curvature)
    _check_tol(tol)
    pairs = largest(curvature, curvature.like, k, tol, most, seed)
    found = tuple(curvature.parts(pair.vector) for pair in pairs)
    return Eigenvalues(
        name="lambda_max",
        value=pairs[0].value,
        error=pairs[0].residual,
        n=objective.n,
        settings={"matrix": matrix, "k": k, "tol": tol},
        how="Lanczos",
        values=tuple(pair.value for pair in pairs),
        residuals=tuple(pair.residual for pair in pairs),
        vectors=found if vectors else None,
    )


def trace(
    objective: Objective,
    *,
    matrix: Matrix = "hessian",
    draws: int = 100,
    seed: int = 0,
) -> Measurement:
    r"""The sum of all eigenvalues, by Hutchinson's estimate.

    .. math::
        \mathrm{tr} H = E[z^T H z], \qquad z_i = \pm 1

    The standard error is that of the draws: unbiased, and honest where few eigenvalues
    stand out. With at least as many draws as weights it is exact, one product per
    weight. Takes one product per draw.

    Args:
        objective: the loss.
        matrix: ``"hessian"`` or ``"ggn"``.
        draws: how many, at least 2.
        seed: of the draws, which are alike on every device and in every process.

    Returns:
        The trace and its standard error; None where exact.

    Raises:
        ValueError: draws is out of range, or there is no such matrix.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Objective, trace
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double()
        >>> data = [(x, torch.zeros(2, 1).double())]
        >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
        >>> trace(objective)
        trace 5 (matrix hessian, exact; n = 2)

    Reference: Hutchinson. A Stochastic Estimator of the Trace of the Influence Matrix
    for Laplacian Smoothing Splines. Communications in Statistics 19(2), 1990.
    """
    integer("draws", draws, 2)
    curvature = Curvature(objective, matrix)
    exact = curvature.like.numel() <= draws
    terms = _diagonal(curvature) if exact else _forms(curvature, draws, seed)
    return Measurement(
        name="trace",
        value=float(terms.sum() if exact else terms.mean()),
        error=None if exact else float(terms.std() / math.sqrt(draws)),
        n=objective.n,
        settings={"matrix": matrix},
        how="exact" if exact else f"{draws} draws, seed {seed}",
    )


def spectral_density(
    objective: Objective,
    *,
    matrix: Matrix = "hessian",
    steps: int = 40,
    draws: int = 4,
    seed: int = 0,
) -> SpectralDensity:
    r"""The distribution of all eigenvalues, by stochastic Lanczos quadrature.

    .. math::
        \mu = \frac1d \sum_{i=1}^d \delta_{\lambda_i}
        \approx \frac{1}{D} \sum_{j=1}^D \sum_{i=1}^S s_{ji}^2 \, \delta_{\theta_{ji}}

    Each of the D draws is a Gaussian start of S steps; theta are the eigenvalues of its
    tridiagonal matrix and s the first entries of their vectors. The extreme nodes are
    close to eigenvalues; in between, only the mass is meaningful. The moments of a
    single draw are exact up to 2 S - 1 for its own start, so the error is that of the
    draws; the record's ``error`` is of the mean eigenvalue. Takes ``steps * draws``
    products.

    Args:
        objective: the loss.
        matrix: ``"hessian"`` or ``"ggn"``.
        steps: S, the nodes of each draw; at most the number of weights.
        draws: D, at least 2.
        seed: of the draws, which are alike on every device and in every process.

    Raises:
        ValueError: steps or draws is out of range, or there is no such matrix.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Objective, spectral_density
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double()
        >>> data = [(x, torch.zeros(2, 1).double())]
        >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
        >>> sorted({round(node, 6) for node in spectral_density(objective).nodes})
        [1.0, 4.0]

    Reference: Ghorbani, Krishnan, Xiao. An Investigation into Neural Net Optimization
    via Hessian Eigenvalue Density. ICML 2019, arXiv:1901.10159.
    """
    integer("steps", steps, 1)
    integer("draws", draws, 2)
    curvature = Curvature(objective, matrix)
    draw = torch.Generator().manual_seed(seed)
    quadratures = [_quadrature(curvature, steps, draw) for _ in range(draws)]
    nodes = torch.cat([nodes for nodes, _ in quadratures])
    weights = torch.cat([weights for _, weights in quadratures]) / draws
    order = nodes.argsort()
    means = torch.stack([nodes @ weights for nodes, weights in quadratures])
    return SpectralDensity(
        name="mean eigenvalue",
        value=float(means.mean()),
        error=float(means.std() / math.sqrt(draws)),
        n=objective.n,
        settings={"matrix": matrix},
        how=f"{draws} draws of {steps} steps, seed {seed}",
        nodes=_floats(nodes[order]),
        weights=_floats(weights[order]),
    )


def spectrum(
    objective: Objective,
    *,
    matrix: Matrix = "hessian",
    tol: float = 1e-3,
    steps: int = 40,
    draws: int = 4,
    seed: int = 0,
) -> Spectrum:
    """The numbers of the paper's Figure 3: lambda_max, its ratio to lambda_5, density.

    A flat minimum has a small lambda_max, and a small ratio: its bulk is not stretched
    out. Arguments and errors are those of `eigenvalues` and `spectral_density`.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Objective, spectrum
        >>> model = torch.nn.Linear(5, 1, bias=False).double()
        >>> x = torch.diag(torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])).double().sqrt()
        >>> data = [(x, torch.zeros(5, 1).double())]
        >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
        >>> measured = spectrum(objective)
        >>> round(measured.value, 6), round(measured.ratio, 6)
        (2.0, 5.0)

    Reference: Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for
    Efficiently Improving Generalization. ICLR 2021, arXiv:2010.01412, Figure 3.
    """
    top = eigenvalues(objective, 5, matrix=matrix, tol=tol, seed=seed)
    density = spectral_density(
        objective, matrix=matrix, steps=steps, draws=draws, seed=seed
    )
    return Spectrum(
        name="lambda_max",
        value=top.value,
        error=top.error,
        n=objective.n,
        settings={"matrix": matrix},
        how=f"lambda_max / lambda_5 {top.ratio:.4g}",
        ratio=top.ratio,
        eigenvalues=top,
        density=density,
    )


def _check_count(k: int, curvature: Curvature) -> None:
    d = curvature.like.numel()
    if integer("k", k, 1) > d:
        raise ValueError(f"there are {d} weights and as many eigenvalues, got k={k}.")


def _check_tol(tol: float) -> None:
    at_least("tol", tol, 0)
    if not tol < 1:
        raise ValueError(f"tol is relative and below 1, got {tol}.")


def _diagonal(curvature: Curvature) -> Tensor:
    d = curvature.like.numel()
    units = torch.eye(d, dtype=curvature.like.dtype, device=curvature.like.device)
    return torch.stack([curvature(unit)[i].double() for i, unit in enumerate(units)])


def _forms(curvature: Curvature, draws: int, seed: int) -> Tensor:
    """``z'Hz`` for vectors of signs."""
    draw = torch.Generator().manual_seed(seed)
    like, forms = curvature.like, list[Tensor]()
    for _ in range(draws):
        # Drawn on the CPU, so that the signs are the same on every device.
        z = 2.0 * torch.randint(2, like.shape, generator=draw, device="cpu") - 1
        z = z.to(like)
        forms.append(z.double() @ curvature(z).double())
    return torch.stack(forms)


def _quadrature(
    curvature: Curvature, steps: int, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Nodes and weights of one start."""
    start, space = normal(curvature.like, draw), Space([], [], [])
    for space in spaces(curvature, start, draw, []):
        if len(space.alphas) == steps:
            break
    nodes, vectors = space.ritz()
    return nodes, vectors[0].square()


def _floats(x: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in x)

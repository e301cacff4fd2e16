"""How much the loss rises around the weights, over all examples at once."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.core import Gradients, TwoPoint
from flatmin.core._checks import integer, radius
from flatmin.diagnostics._ball import Fixed, ball_of, climb, described, step_of
from flatmin.diagnostics._objective import Forward, Objective
from flatmin.diagnostics._record import Maximum, Measurement


def sharpness(
    objective: Objective,
    rho: float = 0.05,
    *,
    p: float = 2.0,
    within: TwoPoint | None = None,
) -> Measurement:
    r"""``L(w + eps) - L(w)`` at SAM's perturbation, over all examples.

    .. math::
        \hat\epsilon = \rho \, \mathrm{sign}(g) |g|^{q-1} / (\|g\|_q^q)^{1/p},
        \qquad g = \nabla L(w)

    One step to the highest point of the linearised loss, as in training, but along the
    gradient of all the data. Where the gradient is zero, the result is 0 and says
    nothing. It can be negative: only for small rho is eps the highest point. Takes one
    gradient and one loss.

    Args:
        objective: the loss.
        rho: the radius; 0.05 is the paper's advice for training.
        p: which norm bounds the perturbation, from 1 to ``math.inf``.
        within: whose scale, metric and filter say what the ball is, in place of ``p``:
            ``TwoPoint(scale=scales.Adaptive(0.01))`` is that of ASAM's authors, and
            ``TwoPoint(scale=scales.Magnitude())`` gives the same number when layers are
            rescaled. Its other joints do not matter.

    Returns:
        The rise, in units of the loss.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, the filter leaves nothing to move, or
            gradient or loss are not finite.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Objective, sharpness
        >>> model = torch.nn.Linear(1, 1, bias=False).double()
        >>> _ = torch.nn.init.constant_(model.weight, 2.0)
        >>> data = [(torch.ones(4, 1).double(), torch.zeros(4, 1).double())]
        >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
        >>> sharpness(objective, rho=0.5)  # 2.5^2 - 2^2
        sharpness 2.25 (rho 0.5, p 2, one step; n = 4)

    Reference: Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for
    Efficiently Improving Generalization. ICLR 2021, arXiv:2010.01412.
    """
    rho, within = radius(rho), ball_of(p, within)
    loss, g = objective.gradient()
    eps = climb(within, step_of(objective, rho), g, rho)
    with objective.at(eps):
        top = finite(objective.loss(), rho)
    return Measurement(
        name="sharpness",
        value=float(top - loss),
        n=objective.n,
        settings=described(rho, within),
        how="one step",
    )


def worst_sharpness(
    objective: Objective,
    rho: float = 0.05,
    *,
    p: float = 2.0,
    within: TwoPoint | None = None,
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 0,
    seed: int = 0,
) -> Maximum:
    r"""``max L(w + eps) - L(w)`` over the ball, as far as an ascent finds it.

    The ascent starts at the one-step point. Each step, of length ``step_size``, goes to
    the highest point of the linearised loss and is projected onto the ball. A step that
    does not rise is taken back, and the next ones are half as long. So the result is
    never below `sharpness`, nor below 0, which ``eps = 0`` reaches; like every ascent
    it may be below the true maximum, and `history` shows whether it still rose at the
    end.

    The gradient may lead to a lower hill than others in the ball. Each of ``restarts``
    more ascents begins at a random point of the surface, in a Gaussian direction, and
    the best of all counts: more of them never give less.

    The ball is the one at ``w``: a scale is computed there and then kept, so that
    with ``within=TwoPoint(scale=scales.Magnitude())`` this is adaptive worst-case
    sharpness, ``|| eps / |w| ||_p <= rho`` over all parameters, biases included. It
    gives the same number when layers are rescaled such that the function is the same.
    ``scales.Adaptive(0)`` does so without biases only, as its unit for them is 1. The
    projection is to the nearest point, in units of the scale, for p = 2 and infinity,
    and along the ray to 0 for other p. Takes ``1 + (restarts + 1) (steps + 1)``
    gradients.

    Differs from the paper: the maximum is over all examples at once. The authors' code
    takes one for each batch, of 128 examples in their runs, and the mean of these,
    which is never smaller. It ascends by APGD with momentum; for an adaptive ball and
    p = 2 along ``|w| g``, and it projects to the nearest point in weights. Here both
    are in units of the scale, so that rescaling does not change the way either.

    Args:
        objective: the loss.
        rho: the radius.
        p: which norm bounds the perturbation, from 1 to ``math.inf``.
        within: whose scale, metric and filter say what the ball is, in place of ``p``.
            The metric has to be `LpBall` or `PerLayer` of it.
        steps: how many, after the first.
        step_size: the length of the first of them, in the norm of the ball; ``rho`` if
            not given.
        restarts: how many ascents from random points.
        seed: of these points, which are alike on every device and in every process.

    Returns:
        The highest rise found, the rise of every point on the way there, and the
        highest rise from each start.

    Raises:
        TypeError: an argument is of the wrong kind, or the metric is no ball.
        ValueError: an argument is out of range, or gradient or loss are not finite.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Objective, worst_sharpness
        >>> model = torch.nn.Linear(1, 1, bias=False).double()
        >>> _ = torch.nn.init.constant_(model.weight, 2.0)
        >>> data = [(torch.ones(4, 1).double(), torch.zeros(4, 1).double())]
        >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
        >>> worst_sharpness(objective, rho=0.5, steps=3)
        worst sharpness 2.25 (rho 0.5, p 2, 3 steps of at most 0.5; n = 4)

    Reference: Andriushchenko, Croce, Mueller, Hein, Flammarion. A Modern Look at the
    Relationship between Sharpness and Generalization. ICML 2023, arXiv:2302.07011.
    """
    rho, within = radius(rho), ball_of(p, within)
    integer("steps", steps, 0)
    integer("restarts", restarts, 0)
    length = rho if step_size is None else radius(step_size, "step_size")
    how = f"{steps} steps of at most {length:g}"
    if restarts:
        how += f", {restarts} restarts, seed {seed}"
    loss, g = objective.gradient()
    ball = Fixed.at(objective, within, g, rho)
    draw = torch.Generator().manual_seed(seed)
    first = ball.project(ball.climb(g, rho), rho)
    ascents = [_ascent(objective, ball, first, rho, steps, length)]
    for _ in range(restarts):
        start = ball.random(rho, draw)
        ascents.append(_ascent(objective, ball, start, rho, steps, length))
    rises = [tuple(float(value - loss) for value in ascent) for ascent in ascents]
    best = max(rises, key=max)
    return Maximum(
        name="worst sharpness",
        value=max(0.0, *best),
        n=objective.n,
        settings=described(rho, within),
        how=how,
        history=best,
        starts=tuple(max(rise) for rise in rises),
    )


def average_sharpness(
    objective: Objective,
    rho: float = 0.05,
    *,
    draws: int = 100,
    seed: int = 0,
    within: TwoPoint | None = None,
) -> Measurement:
    r"""``E[L(w + eps)] - L(w)`` for Gaussian ``eps`` of expected length rho.

    .. math::
        \epsilon = \frac{\rho}{\sqrt d} \, T z, \qquad z \sim N(0, I_d), \qquad
        E \|T^{-1} \epsilon\|_2^2 = \rho^2

    ``d`` counts the weights that move, and T is the scale of ``within``, 1 by default:
    rho is comparable with that of the other measures. To second order it is
    :math:`\rho^2 / (2 d)` times the trace of ``T H T``. Takes one gradient and
    ``draws`` losses.

    Differs from the paper: there, and in its authors' code, rho is the standard
    deviation of every weight in units of the scale, so that ``eps`` has the expected
    length ``rho sqrt(d)``. For their number at radius ``rho`` give ``rho * sqrt(d)``
    here, with ``d = sum(p.numel() for p in objective.w)`` if nothing is held; to second
    order theirs is d times as large at the same rho. Their adaptive scale is
    ``scales.Magnitude()``.

    Args:
        objective: the loss.
        rho: the root of the mean squared length of ``eps``, in units of the scale.
        draws: how many, at least 2.
        seed: of the draws, which are alike on every device and in every process.
        within: whose scale and filter say what moves in which unit; its metric does
            not matter.

    Returns:
        The mean over the draws and its standard error.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or gradient or loss are not finite.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Objective, average_sharpness
        >>> model = torch.nn.Linear(3, 2)
        >>> data = [(torch.randn(8, 3), torch.randint(2, (8,)))]
        >>> objective = Objective(model, torch.nn.functional.cross_entropy, data)
        >>> average_sharpness(objective, draws=10).how
        '10 draws, seed 0'

    Reference: Andriushchenko, Croce, Mueller, Hein, Flammarion. A Modern Look at the
    Relationship between Sharpness and Generalization. ICML 2023, arXiv:2302.07011.
    """
    rho, within = radius(rho), ball_of(2.0, within)
    integer("draws", draws, 2)
    loss, g = objective.gradient()
    ball = Fixed.at(objective, within, g, rho)
    sigma = rho / math.sqrt(max(1, ball.dimension()))
    draw = torch.Generator().manual_seed(seed)
    rises = torch.zeros(draws, dtype=torch.float64, device="cpu")
    for k in range(draws):
        with objective.at(ball.gaussian(sigma, draw)):
            rises[k] = finite(objective.loss(), rho) - loss
    settings = described(rho, within)
    settings.pop("p", None)
    return Measurement(
        name="average sharpness",
        value=float(rises.mean()),
        error=float(rises.std() / math.sqrt(draws)),
        n=objective.n,
        settings=settings,
        how=f"{draws} draws, seed {seed}",
    )


def normalised(forward: Forward) -> Forward:
    r"""A ``forward`` for `Objective` whose logits have unit standard deviation.

    .. math::
        \tilde f(x) = f(x) \Big/
        \sqrt{\tfrac1K \textstyle\sum_{i=1}^K (f(x)_i - \bar f(x))^2}

    A network's sharpness falls as its last layer grows, whatever else it does; after
    this, the scale of the logits does not matter. The classes are along the second
    axis. Logits that are all equal have no scale, and give a loss that `Objective`
    refuses.

    Args:
        forward: from model and batch to logits and targets.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Objective, normalised, sharpness
        >>> def forward(model, batch):
        ...     x, y = batch
        ...     return model(x), y
        >>> model = torch.nn.Linear(3, 2)
        >>> data = [(torch.randn(8, 3), torch.randint(2, (8,)))]
        >>> loss = torch.nn.functional.cross_entropy
        >>> objective = Objective(model, loss, data, forward=normalised(forward))
        >>> sharpness(objective).name
        'sharpness'

    Reference: Andriushchenko, Croce, Mueller, Hein, Flammarion. A Modern Look at the
    Relationship between Sharpness and Generalization. ICML 2023, arXiv:2302.07011.
    """

    def normalising(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        logits, targets = forward(model, batch)
        return logits / logits.std(dim=1, correction=0, keepdim=True), targets

    return normalising


def finite(loss: Tensor, rho: float) -> Tensor:
    """Return the loss at a perturbed point, if it is finite.

    Raises:
        ValueError: it is infinite or NaN.
    """
    if not loss.isfinite():
        raise ValueError(
            f"the loss is {float(loss)} at a point of the ball of radius {rho:g}: too "
            "large for this model. Use a smaller rho."
        )
    return loss


def _ascent(
    objective: Objective,
    ball: Fixed,
    eps: Gradients,
    rho: float,
    steps: int,
    length: float,
) -> list[Tensor]:
    """The loss at ``eps`` and at every point tried from there."""
    top, g = _slope_at(objective, eps, rho)
    losses = [top]
    for _ in range(steps):
        trial = ball.project(_sum(eps, ball.climb(g, length)), rho)
        value, slope = _slope_at(objective, trial, rho)
        losses.append(value)
        if value > top:
            eps, top, g = trial, value, slope
        else:
            length /= 2
    return losses


def _slope_at(
    objective: Objective, eps: Gradients, rho: float
) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradient at ``w + eps``."""
    with objective.at(eps):
        loss, g = objective.gradient()
    return finite(loss, rho), g


def _sum(a: Gradients, b: Gradients) -> Gradients:
    return [
        x if y is None else y if x is None else x + y for x, y in zip(a, b, strict=True)
    ]

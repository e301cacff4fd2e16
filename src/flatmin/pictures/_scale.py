"""Axes, heights and colours that compared pictures share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from flatmin.diagnostics.landscape import Plane

#: The share of all finite losses that is drawn; higher ones are cut off.
_DRAWN = 0.75

#: Okabe and Ito's colours and a dash for each: any two differ in grey as well.
STYLES = (
    ("#0072B2", "--", "dash"),
    ("#D55E00", "-", "solid"),
    ("#009E73", ":", "dot"),
    ("#CC79A7", "-.", "dashdot"),
    ("#E69F00", (0, (6, 1)), "longdash"),
)


@dataclass(frozen=True, slots=True)
class Scale:
    """Axes, heights and colours of planes that are compared.

    Attributes:
        low: the lowest loss, where colours begin.
        top: where losses are cut off, and colours end.
        a: the first and the last coordinate along ``u``.
        b: the first and the last coordinate along ``v``.
    """

    low: float
    top: float
    a: tuple[float, float]
    b: tuple[float, float]

    @classmethod
    def of(cls, planes: Iterable[Plane], top: float | None = None) -> Self:
        """Return the scale that holds all planes.

        Args:
            planes: at least one.
            top: where losses are cut off; by default, a quarter of all is higher.

        Raises:
            ValueError: there is no plane, no finite loss, or none below ``top``; a
                plane has a single point along a direction.
        """
        planes = list(planes)
        if not planes:
            raise ValueError("there is no plane to draw.")
        losses = np.concatenate([np.ravel(plane.losses) for plane in planes])
        losses = losses[np.isfinite(losses)]
        if len(losses) == 0:
            raise ValueError("no loss of these planes is a finite number.")
        if any(min(len(plane.a), len(plane.b)) < 2 for plane in planes):
            raise ValueError(
                "a plane needs two points along each direction to be drawn. Draw a "
                "`landscape.line` with `pictures.line`."
            )
        low = min(0.0, float(losses.min()))
        high = float(np.quantile(losses, _DRAWN)) if top is None else top
        if not low < high < np.inf:
            raise ValueError(f"top must be above the lowest loss {low:g}, got {high}.")
        sides = [
            (
                min(min(getattr(plane, name)) for plane in planes),
                max(max(getattr(plane, name)) for plane in planes),
            )
            for name in ("a", "b")
        ]
        return cls(low, high, sides[0], sides[1])

    def levels(self, count: int = 12) -> NDArray[np.float64]:
        """Return ``low``, round heights of contour lines, and ``top``."""
        nice = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10])
        heights = np.asarray(nice.tick_values(self.low, self.top))
        inside = heights[(heights > self.low) & (heights < self.top)]
        return np.array([self.low, *inside, self.top])


def finer(
    plane: Plane, scale: Scale, points: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return coordinates and losses of a plane at more points, by interpolation.

    Interpolation is bilinear, as a drawing of the measured points alone would suggest.
    NaN stays NaN, and losses far above the top are lowered.

    Args:
        plane: which one.
        scale: of all planes that are compared.
        points: at least so many along each side; the measured ones are among them.
    """
    high = scale.top + 2 * (scale.top - scale.low)
    # A minimum with NaN is NaN.
    loss = np.minimum(np.asarray(plane.losses, dtype=np.float64), high)
    a, b = (_between(np.asarray(x), points) for x in (plane.a, plane.b))
    along = np.stack([_between(row, points) for row in loss])
    fine = np.stack([_between(column, points) for column in along.T], axis=1)
    return a, b, fine


def cut(plane: Plane, scale: Scale, points: int) -> NDArray[np.float64]:
    """Return points ``x, y, z`` of a surface that is cut at the top, in a clean rim.

    Points above the top with neighbours below it move to where the surface crosses the
    top: to the mean of the crossings on the way to these neighbours. All other points
    above have NaN as z.
    """
    a, b, loss = finer(plane, scale, points)
    grid = np.stack([*np.meshgrid(a, b), loss])
    rows, columns = loss.shape
    wide = np.pad(grid, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    near = np.stack(
        [wide[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    )
    below = near[:, 2:] <= scale.top
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (scale.top - near[:, 2:]) / (loss - near[:, 2:])
        crossings = np.where(below, near + share * (grid - near), 0)
        rim = crossings.sum(axis=0) / below.sum(axis=0)
    x, y, z = np.where(loss <= scale.top, grid, rim)
    gap = np.isnan(z)
    return np.stack([np.where(gap, grid[0], x), np.where(gap, grid[1], y), z])


def named(planes: Mapping[str, Plane] | Plane) -> Mapping[str, Plane]:
    """Return planes by the name of their model; a single plane has none."""
    return {"": planes} if isinstance(planes, Plane) else planes


def _between(x: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """Return values with enough new ones between every two for ``points``."""
    times = max(1, math.ceil((points - 1) / max(1, len(x) - 1)))
    k = np.arange((len(x) - 1) * times + 1) / times
    return np.interp(k, np.arange(len(x)), x)

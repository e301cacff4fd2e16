"""The camera's place for landscapes, and a sentence on what they show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from flatmin.diagnostics.landscape import Plane
from flatmin.pictures._scale import Scale

#: How far above the horizon the camera is, in degrees, to look into a valley.
_ELEVATION = 52.0

#: Where it may stand, in degrees from the first axis: near a corner, not a side.
_AZIMUTHS = (-57.0, 33.0, 123.0, -147.0)


def view(planes: Iterable[Plane], scale: Scale) -> tuple[float, float]:
    """Return elevation and azimuth, in degrees, over the planes' lowest corner."""
    planes = list(planes)
    heights = {
        azimuth: sum(_in_the_way(plane, scale, azimuth) for plane in planes)
        for azimuth in _AZIMUTHS
    }
    return _ELEVATION, min(heights, key=lambda azimuth: round(heights[azimuth], 6))


def seen(planes: Mapping[str, Plane], loss: str) -> str:
    """Say in one sentence how far the loss rises around each model.

    The rise is the mean over a disc of half the planes' size. The sentence is empty if
    a plane does not surround its model.

    Args:
        planes: by the name of their model.
        loss: the name of the loss.
    """
    radius = min(map(_reach, planes.values())) / 2
    if radius <= 0:
        return ""
    rises = {name: _rise(plane, radius) for name, plane in planes.items()}
    order = sorted(rises, key=lambda name: rises[name])
    said = [f"{_by(rises[name])} around {name or 'the model'}" for name in order]
    start = f"Within distance {radius:.3g} of the middle, the {loss} rises on average "
    return f"{start}{_listed(said)}{_wider(order, rises)}."


def _in_the_way(plane: Plane, scale: Scale, azimuth: float) -> float:
    """Return the mean height of the quarter of a plane nearest to the camera."""
    x, y = np.meshgrid(plane.a, plane.b)
    angle = math.radians(azimuth)
    near = (x - np.mean(scale.a)) * math.cos(angle)
    near = near + (y - np.mean(scale.b)) * math.sin(angle)
    losses = np.nan_to_num(np.asarray(plane.losses), nan=scale.top, posinf=scale.top)
    return float(np.minimum(losses, scale.top)[near >= np.quantile(near, 0.75)].mean())


def _reach(plane: Plane) -> float:
    """Return how far a plane extends from its middle to the nearest side."""
    return min(-min(plane.a), max(plane.a), -min(plane.b), max(plane.b))


def _rise(plane: Plane, radius: float) -> float:
    """Return the mean loss within a distance, minus the middle's; inf if not finite."""
    x, y = np.meshgrid(plane.a, plane.b)
    losses = np.asarray(plane.losses, dtype=np.float64)
    away = np.hypot(x, y)
    rise = losses[away <= max(radius, away.min())].mean() - losses.flat[away.argmin()]
    return float(rise) if np.isfinite(rise) else math.inf


def _by(rise: float) -> str:
    return "without bound" if math.isinf(rise) else f"by {rise:.2g}"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _wider(order: list[str], rises: Mapping[str, float]) -> str:
    """Name the widest minimum; empty if the numbers do not tell."""
    if len(order) < 2 or min(rises.values()) < 0:
        return ""
    if _by(rises[order[0]]) == _by(rises[order[1]]):
        return ""
    how = "wider" if len(order) == 2 else "widest"
    return f": in this plane, the minimum of {order[0]} is the {how}"

"""Pictures for papers, by matplotlib, as vectors or pixels."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from flatmin.diagnostics.landscape import Line, Plane
from flatmin.pictures._scale import STYLES, Scale, cut, finer, named
from flatmin.pictures._seen import view

#: Lightness rises from end to end, for colour-blind readers and in grey.
_COLOURS = "viridis"

#: Points along each side of a surface, at least.
_POINTS = 161


def contour(
    planes: Mapping[str, Plane] | Plane,
    *,
    top: float | None = None,
    loss: str = "training loss",
) -> Figure:
    """Draw planes side by side as contours, on one scale.

    Losses above ``top`` are white, NaN is hatched. A cross marks the model.

    Args:
        planes: by the name of their model.
        top: the highest loss that is drawn; see `Scale`.
        loss: the name of the loss.

    Raises:
        ValueError: as `Scale.of`.
    """
    planes = named(planes)
    scale = Scale.of(planes.values(), top)
    figure = Figure(figsize=(3.6 * len(planes) + 0.9, 3.7), layout="constrained")
    panels = figure.subplots(1, len(planes), squeeze=False, sharey=True)[0]
    filled = [
        _contours(panel, name, plane, scale)
        for panel, (name, plane) in zip(panels, planes.items(), strict=True)
    ]
    bar: Any = figure.colorbar(filled[0], ax=list(panels), label=loss, pad=0.02)
    bar.ax.set_title(f"above {scale.top:.2g}:\nwhite", fontsize="x-small")
    return figure


def surface(
    planes: Mapping[str, Plane] | Plane,
    *,
    top: float | None = None,
    loss: str = "training loss",
    columns: int | None = None,
) -> Figure:
    """Draw planes side by side as surfaces, on one scale, with contours below.

    The surface ends where the loss is above ``top`` or NaN.

    Args:
        planes: by the name of their model.
        top: the highest loss that is drawn; see `Scale`.
        loss: the name of the loss.
        columns: pictures in a row; by default all.

    Raises:
        ValueError: as `Scale.of`.
    """
    planes = named(planes)
    scale = Scale.of(planes.values(), top)
    looks = view(planes.values(), scale)
    columns = columns or len(planes)
    rows = -(-len(planes) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.9 * rows))
    figure.subplots_adjust(0, 0.03, 0.96, 0.92, wspace=0.02, hspace=0.12)
    for k, (name, plane) in enumerate(planes.items(), start=1):
        panel: Any = figure.add_subplot(
            rows, columns, k, projection="3d", computed_zorder=False
        )
        _relief(panel, plane, scale, looks)
        panel.set_zlabel(loss)
        panel.set_title(name, y=1.04, parse_math=False)
    return figure


def relief(plane: Plane, scale: Scale, loss: str, looks: tuple[float, float]) -> Figure:
    """Draw one plane as a surface, with the scale and the camera of several.

    Args:
        plane: which one.
        scale: of all planes that are compared.
        loss: the name of the loss.
        looks: elevation and azimuth of the camera, in degrees.
    """
    figure = Figure(figsize=(4.4, 3.9))
    # Room for the name of the loss, which stands left or right of the surface.
    figure.subplots_adjust(0.06, -0.02, 0.92, 1.02)
    panel: Any = figure.add_subplot(projection="3d", computed_zorder=False)
    _relief(panel, plane, scale, looks)
    panel.set_zlabel(loss)
    return figure


def line(
    lines: Mapping[str, Line | Sequence[Line]] | Line,
    *,
    top: float | None = None,
    loss: str = "training loss",
) -> Figure:
    """Draw losses along a direction; for several lines, their median and range.

    Args:
        lines: by the name of their model, one or several (of seeds, or of directions)
            with the same coordinates.
        top: where the axis ends; by default where the losses end.
        loss: the name of the loss.

    Raises:
        ValueError: lines of one model have different coordinates.
    """
    given = {"": lines} if isinstance(lines, Line) else lines
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    panel = figure.subplots()
    for k, (name, some) in enumerate(given.items()):
        bundle = [some] if isinstance(some, Line) else list(some)
        _bundle(panel, name, bundle, STYLES[k % len(STYLES)])
        panel.set_xlabel(bundle[0].labels[0])
    panel.set_ylabel(loss)
    panel.set_ylim(top=top)
    panel.spines[["top", "right"]].set_visible(False)
    if any(given):
        panel.legend(frameon=False)
    return figure


def encoded(figure: Figure, kind: Literal["svg", "pdf", "png"] = "svg") -> bytes:
    """Return a figure as a file's content; the same figure gives the same bytes.

    Signs that matplotlib's fonts lack become boxes, without a warning.
    """
    buffer = io.BytesIO()
    # Text stays text; neither random ids nor the date change the bytes.
    fixed: Any = {"svg.fonttype": "none", "svg.hashsalt": "flatmin", "pdf.fonttype": 42}
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    with mpl.rc_context(fixed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(buffer, format=kind, dpi=200, metadata=dates[kind])
    return buffer.getvalue()


def _contours(panel: Any, name: str, plane: Plane, scale: Scale) -> Any:
    loss = np.ma.masked_invalid(np.where(np.isposinf(plane.losses), 1e30, plane.losses))
    levels = scale.levels(14)
    panel.set_facecolor("white")
    panel.patch.set(hatch="xxxx" if loss.mask.any() else "", edgecolor="0.7")
    filled = panel.contourf(plane.a, plane.b, loss, levels, cmap=_COLOURS)
    panel.contourf(plane.a, plane.b, loss, [scale.top, 1e31], colors="white")
    lines = panel.contour(
        plane.a, plane.b, loss, levels[1::2], colors="black", linewidths=0.5
    )
    panel.clabel(lines, fontsize="x-small", fmt="%.2g")
    panel.plot(0, 0, "+", color="white", markersize=9, markeredgewidth=2)
    panel.set_title(name, fontsize="medium", parse_math=False)
    for place, a, b in plane.marks:
        panel.plot(a, b, "o", color="white", markeredgecolor="black")
        panel.annotate(place, (a, b), (4, 4), textcoords="offset points")
    panel.set(xlabel=plane.labels[0], ylabel=plane.labels[1])
    panel.set(xlim=scale.a, ylim=scale.b, aspect="equal")
    return filled


def _relief(panel: Any, plane: Plane, scale: Scale, looks: tuple[float, float]) -> None:
    floor = scale.low - 0.42 * (scale.top - scale.low)
    _sheet(panel, plane, scale, floor)
    panel.set(xlabel=plane.labels[0], ylabel=plane.labels[1])
    panel.set(xlim=scale.a, ylim=scale.b, zlim=(floor, scale.top))
    # Without the ticks at the ends: those of both axes meet in the corner in front.
    panel.locator_params("x", nbins=4, prune="both")
    panel.locator_params("y", nbins=4, prune="both")
    panel.locator_params("z", nbins=5)
    panel.set_zticks([z for z in panel.get_zticks() if scale.low <= z <= scale.top])
    panel.set_zlim(floor, scale.top)
    panel.view_init(*looks)
    panel.set_box_aspect(None, zoom=0.9)


def _sheet(panel: Any, plane: Plane, scale: Scale, floor: float) -> None:
    """Draw the surface, its contour lines, and filled contours on the floor below."""
    a, b, loss = finer(plane, scale, _POINTS)
    colours = {"cmap": _COLOURS, "vmin": scale.low, "vmax": scale.top}
    panel.contourf(
        a, b, loss, scale.levels(), zdir="z", offset=floor, alpha=0.8, **colours
    )
    panel.plot_surface(
        *cut(plane, scale, _POINTS), rstride=1, cstride=1, linewidth=0,
        antialiased=False, rasterized=True, **colours,
    )  # fmt: skip
    panel.contour(
        a, b, loss, scale.levels()[1:], colors="white", linewidths=0.4, alpha=0.7
    )


def _bundle(panel: Any, name: str, bundle: list[Line], style: Any) -> None:
    if len({one.a for one in bundle}) != 1:
        raise ValueError(f"the lines of {name!r} have different coordinates.")
    colour, dash, _ = style
    losses = np.array([one.losses for one in bundle])
    losses[~np.isfinite(losses)] = np.nan
    a = bundle[0].a
    if len(bundle) > 1:
        panel.fill_between(
            a, losses.min(0), losses.max(0), color=colour, alpha=0.2, linewidth=0
        )
    panel.plot(a, np.median(losses, axis=0), color=colour, linestyle=dash, label=name)

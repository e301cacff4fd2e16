"""The pictures: plotly for the page, matplotlib for papers; colour-blind-safe."""

from __future__ import annotations

import io
import math
from typing import Any

import matplotlib as mpl
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from flatmin.experiments.summary import Curve, Row, settings
from flatmin.experiments.train import noise_name, percent

#: Okabe and Ito's palette.
COLOURS = {"sgd": "#56B4E9", "sgd-2x": "#0072B2", "sam": "#D55E00"}
DASHES = {"sgd": "dot", "sgd-2x": "dash", "sam": "solid"}
_LINES = {"sgd": ":", "sgd-2x": "--", "sam": "-"}


def ceiling(classes: int) -> float:
    """Where landscapes are cut off: twice the loss of guessing."""
    return 2 * math.log(classes)


def landscapes_of(landscapes: dict[str, Any], noise: float) -> dict[str, Any]:
    """The losses around the minima of one setting, by arm."""
    return landscapes.get(noise_name(noise), {})


def curves(noise: float, rows: list[Row], curve_of: dict[Any, Curve]) -> go.Figure:
    """Test error against cost under one share of label noise, for the page."""
    figure = go.Figure()
    for row in (row for row in rows if row.noise == noise):
        curve, colour = curve_of[noise, row.arm], COLOURS[row.arm]
        figure.add_scatter(
            x=curve.x + curve.x[::-1],
            y=curve.high + curve.low[::-1],
            fill="toself",
            fillcolor=colour,
            opacity=0.2,
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=curve.x,
            y=curve.mean,
            name=row.label,
            line={"color": colour, "dash": DASHES[row.arm]},
            hovertemplate="%{y:.2f} % at %{x:,} gradient examples",
        )
    figure.update_layout(
        xaxis_title="gradient examples",
        yaxis_title="test error (%)",
        yaxis_rangemode="tozero",
        template="plotly_white",
        legend={"orientation": "h", "y": 1.1},
        margin={"l": 60, "r": 10, "t": 30, "b": 50},
        height=380,
    )
    return figure


def surface(axis: list[float], loss: list[list[float]], top: float) -> go.Figure:
    """One landscape, turnable, for the page; cut off at ``top``."""
    figure = go.Figure(
        go.Surface(
            x=axis,
            y=axis,
            z=_cut(loss, top).round(5).tolist(),
            cmin=0,
            cmax=top,
            colorscale="Viridis",
            showscale=False,
            contours={"z": {"show": True, "color": "white", "size": top / 12}},
            hovertemplate="loss %{z:.3f}<extra></extra>",
        )
    )
    figure.update_layout(
        scene={
            "xaxis_title": "u",
            "yaxis_title": "v",
            "zaxis": {"title": "training loss", "range": [0, top]},
            "aspectmode": "cube",
            "camera": {"eye": {"x": 1.6, "y": -1.6, "z": 1.0}},
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        height=420,
    )
    return figure


def pictures(
    rows: list[Row],
    curve_of: dict[Any, Curve],
    landscapes: dict[str, Any],
    top: float,
) -> dict[str, bytes]:
    """PNG files for papers, by name."""
    drawn = {"curves.png": _curves_png(rows, curve_of)}
    if landscapes:
        drawn["landscapes.png"] = _landscapes_png(rows, landscapes, top)
    return drawn


def _curves_png(rows: list[Row], curve_of: dict[Any, Curve]) -> bytes:
    noises = settings(rows)
    figure = Figure(figsize=(5 * len(noises), 3.6), layout="constrained")
    panels = figure.subplots(1, len(noises), squeeze=False)[0]
    for noise, panel in zip(noises, panels, strict=True):
        for row in (row for row in rows if row.noise == noise):
            curve, colour = curve_of[noise, row.arm], COLOURS[row.arm]
            panel.fill_between(
                curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0
            )
            panel.plot(
                curve.x, curve.mean, _LINES[row.arm], color=colour, label=row.label
            )
        panel.set_title(f"{percent(noise)} label noise")
        panel.set_xlabel("gradient examples")
        panel.set_ylabel("test error (%)")
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    return _png(figure)


def _landscapes_png(rows: list[Row], landscapes: dict[str, Any], top: float) -> bytes:
    drawn = [row for row in rows if row.arm in landscapes_of(landscapes, row.noise)]
    lines = len(settings(drawn))
    columns = len(drawn) // lines
    figure = Figure(figsize=(4.5 * columns, 4.2 * lines), layout="constrained")
    a, b = np.meshgrid(landscapes["axis"], landscapes["axis"])
    for i, row in enumerate(drawn, start=1):
        panel: Any = figure.add_subplot(
            lines, columns, i, projection="3d", computed_zorder=False
        )
        loss = _cut(landscapes_of(landscapes, row.noise)[row.arm], top)
        panel.plot_surface(
            a, b, loss, cmap="viridis", vmin=0, vmax=top, rcount=60, ccount=60
        )
        panel.set(xlabel="u", ylabel="v", zlabel="training loss", zlim=(0, top))
        panel.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        panel.set_title(f"{row.label}, {percent(row.noise)} label noise")
        panel.view_init(elev=28, azim=-55)
    return _png(figure)


def _cut(loss: list[list[float]], top: float) -> np.ndarray[Any, Any]:
    """Losses above ``top``, NaN among them, at ``top``."""
    return np.fmin(np.nan_to_num(np.array(loss, dtype=float), nan=top), top)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context({"savefig.dpi": 200}):
        figure.savefig(buffer, format="png")
    return buffer.getvalue()

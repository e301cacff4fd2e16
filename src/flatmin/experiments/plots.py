"""The pictures: plotly for the page, matplotlib for papers; colour-blind-safe."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure

from flatmin import pictures
from flatmin.diagnostics.landscape import Plane
from flatmin.experiments.comparison import noise_name
from flatmin.experiments.finished import percent
from flatmin.experiments.summary import Curve, Row, settings

#: Planes by share of label noise, as folders call it, and by arm.
Planes = dict[str, dict[str, Plane]]

#: Okabe and Ito's palette.
COLOURS = {"sgd": "#56B4E9", "sgd-2x": "#0072B2", "sam": "#D55E00"}
DASHES = {"sgd": "dot", "sgd-2x": "dash", "sam": "solid"}
_LINES = {"sgd": ":", "sgd-2x": "--", "sam": "-"}


def planes_of(planes: Planes, rows: list[Row], noise: float) -> dict[str, Plane]:
    """The planes around the minima of one setting, by the label of their arm."""
    drawn = planes.get(noise_name(noise), {})
    here = [row for row in rows if row.noise == noise and row.arm in drawn]
    return {row.label: drawn[row.arm] for row in here}


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


def files(
    rows: list[Row], curve_of: dict[Any, Curve], planes: Planes, top: float
) -> dict[str, bytes]:
    """PNG files for papers, by name."""
    drawn = {"curves.png": pictures.encoded(_curves(rows, curve_of), "png")}
    named = {
        f"{label}, {percent(noise)} label noise": plane
        for noise in settings(rows)
        for label, plane in planes_of(planes, rows, noise).items()
    }
    if named:
        columns = len(named) // len(planes)
        figure = pictures.surface(named, top=top, columns=columns)
        drawn["landscapes.png"] = pictures.encoded(figure, "png")
    return drawn


def _curves(rows: list[Row], curve_of: dict[Any, Curve]) -> Figure:
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
    return figure

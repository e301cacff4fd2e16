"""Panels drawn: plotly for the page, matplotlib for papers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from flatmin.experiments.report._panels import COST, Line, Panel
from flatmin.experiments.report._words import compact
from flatmin.pictures._scale import STYLES

#: Lines with no more points than this have marks at them.
_MARKED = 20

#: Panels in a row of a file.
_COLUMNS = 3

#: A legend with more lines than this stands beside its panel.
_INSIDE = 5


def drawn(panel: Panel) -> go.Figure:
    """For the page."""
    figure = go.Figure()
    for k, line in enumerate(panel.lines):
        colour, _, dash = _style(k)
        name = escape(line.name)
        figure.add_scatter(
            x=line.x + line.x[::-1],
            y=line.high + line.low[::-1],
            fill="toself",
            fillcolor=colour,
            opacity=_shade(panel),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
            legendgroup=str(k),
        )
        figure.add_scatter(
            x=line.x,
            y=line.y,
            name=name,
            mode="lines+markers" if len(line.x) <= _MARKED else "lines",
            line={"color": colour, "dash": dash},
            hovertemplate="%{y:.2f} at %{x:,}",
            legendgroup=str(k),
        )
        if line.paper:
            x, y = zip(*line.paper, strict=True)
            figure.add_scatter(
                x=x,
                y=y,
                name=f"{name}, paper",
                mode="markers",
                marker={"symbol": "diamond-open", "color": colour, "size": 10},
                hovertemplate="%{y} at %{x:,}",
                showlegend=False,
                legendgroup=str(k),
            )
    figure.update_layout(
        xaxis_title=escape(panel.x),
        xaxis_type="log" if panel.log else "linear",
        xaxis_exponentformat="SI" if panel.x == COST else "power",
        yaxis_title=escape(panel.y),
        template="plotly_white",
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "itemwidth": 45},
        margin={"l": 60, "r": 10, "t": 30, "b": 50},
        height=380 + 18 * max(0, len(panel.lines) - _INSIDE),
    )
    return figure


def printed(panels: Sequence[Panel], warning: str = "") -> Figure:
    """For papers: all panels in one figure, below a warning if there is one."""
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    most = max(len(panel.lines) for panel in panels)
    width, height = (4.8, 3.5) if most <= _INSIDE else (7.5, max(3.5, 0.21 * most))
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    figure.suptitle(warning, fontsize="medium")
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for panel, axes in zip(panels, grid.flat, strict=False):
        for k, line in enumerate(panel.lines):
            _draw(axes, line, k, _shade(panel))
        _label(axes, panel)
    return figure


def _label(axes: Any, panel: Panel) -> None:
    """Axes and legend; names are text, never TeX."""
    axes.set_xscale("log" if panel.log else "linear")
    if panel.x == COST:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: compact(x)))
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_title(panel.title, fontsize="medium", parse_math=False)
    axes.set_xlabel(panel.x, parse_math=False)
    axes.set_ylabel(panel.y, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    where = beside if len(panel.lines) > _INSIDE else {}
    for text in axes.legend(frameon=False, fontsize="small", **where).get_texts():
        text.set_parse_math(False)


def _draw(axes: Any, line: Line, k: int, shade: float) -> None:
    colour, dash, _ = _style(k)
    axes.fill_between(
        line.x, line.low, line.high, color=colour, alpha=shade, linewidth=0
    )
    marker = "o" if len(line.x) <= _MARKED else ""
    axes.plot(
        line.x, line.y, color=colour, linestyle=dash, marker=marker, markersize=4,
        label=line.name,
    )  # fmt: skip
    if line.paper:
        x, y = zip(*line.paper, strict=True)
        axes.plot(x, y, "D", color=colour, fillstyle="none", label="_paper")


def _style(k: int) -> tuple[str, Any, str]:
    """Colour and dash (matplotlib's, plotly's); 25 in all are told apart."""
    many = len(STYLES)
    _, dash, called = STYLES[(k + k // many) % many]
    return STYLES[k % many][0], dash, called


def _shade(panel: Panel) -> float:
    """How opaque bands are: lines stay visible below many of them."""
    return 0.2 if len(panel.lines) <= _INSIDE else 0.06

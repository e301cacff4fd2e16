"""Learning curves and trends: plotly for pages, matplotlib for papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from flatmin.experiments.report._words import compact
from flatmin.pictures import html as pages
from flatmin.pictures._scale import STYLES

#: The horizontal axis of learning curves.
COST = "gradient examples"

#: Lines with no more points than this have marks at the points.
_MARKED = 20

#: Panels in a row of a file.
_COLUMNS = 3

#: A legend with more lines than this is placed beside its panel.
_INSIDE = 5

#: Place of a page's legend: below the axes, because the toolbar is above them.
_BELOW = {"orientation": "h", "y": -0.22, "yanchor": "top", "itemwidth": 45}


@dataclass(frozen=True, slots=True)
class Line:
    """A line with the band around it.

    Attributes:
        name: in the legend.
        x: where its points are.
        y: means over the seeds.
        low: lower end of the band.
        high: upper end of the band.
        paper: coordinates of the paper's numbers.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    paper: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """Axes and their lines; ``log`` makes the horizontal axis logarithmic."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    log: bool = False


def curve(name: str, seeds: Sequence[Sequence[tuple[float, float]]]) -> Line:
    """Return the mean and the range of several seeds, up to the shortest of them.

    Args:
        name: in the legend.
        seeds: the points of each: the cost so far, and the test error then.

    Example:
        >>> curve("SAM", [[(100, 5.0), (200, 3.0)], [(100, 7.0)]])
        Line(name='SAM', x=(100,), y=(6.0,), low=(5.0,), high=(7.0,), paper=())
    """
    steps = list(zip(*seeds, strict=False))
    errors = [[error for _, error in step] for step in steps]
    return Line(
        name=name,
        x=tuple(step[0][0] for step in steps),
        y=tuple(sum(at) / len(at) for at in errors),
        low=tuple(map(min, errors)),
        high=tuple(map(max, errors)),
    )


def html(panels: Sequence[Panel], name: str, caption: str) -> list[Markup]:
    """Figures for a page that extends ``base.html.j2``, one per panel.

    Args:
        panels: what they show.
        name: for ids in the page; the figure of the ``k``-th panel is ``name-k``.
        caption: below each, after the panel's title.
    """
    return [
        pages.figure(
            drawn(panel),
            f"{name}-{k}",
            f"{panel.title}. {caption}" if panel.title else caption,
            printed([panel]),
        )
        for k, panel in enumerate(panels)
    ]


def drawn(panel: Panel) -> go.Figure:
    """Draw one panel for a page."""
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
            hovertemplate="%{y:.4~g} at %{x:,}",
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
        showlegend=True,
        legend=_BELOW,
        margin={"l": 60, "r": 10, "t": 30, "b": 60},
        height=420 + 18 * max(0, len(panel.lines) - _INSIDE),
    )
    return figure


def printed(panels: Sequence[Panel], warning: str = "") -> Figure:
    """Draw all panels in one figure for a file, below a warning if there is one."""
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
    """Set axes and legend; names are plain text, never TeX."""
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
    """Return colour and dash (matplotlib's, plotly's); 25 lines look different."""
    many = len(STYLES)
    _, dash, called = STYLES[(k + k // many) % many]
    return STYLES[k % many][0], dash, called


def _shade(panel: Panel) -> float:
    """Return the opacity of bands: low where many of them could hide the lines."""
    return 0.2 if len(panel.lines) <= _INSIDE else 0.06

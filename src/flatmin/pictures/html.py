"""Landscapes that readers can turn: plotly, in pages that need no network."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from flatmin.diagnostics.landscape import Plane
from flatmin.pictures._scale import Scale, cut, named
from flatmin.pictures._seen import seen, view
from flatmin.pictures.static import encoded, relief

_BUTTONS = {
    "left": "◀ turn left",
    "right": "turn right ▶",
    "up": "▲ up",
    "down": "▼ down",
    "closer": "+ closer",
    "away": "- away",
    "reset": "reset",
}

#: plotly interpolates surfaces with fewer points along a side, which tears their rims.
_POINTS = 129

#: How far the camera is from the middle, in sides of the landscape.
_AWAY = 2.15


def page(
    planes: Mapping[str, Plane] | Plane,
    *,
    title: str = "Loss landscapes",
    text: str = "",
    top: float | None = None,
    loss: str = "training loss",
) -> str:
    """Return an HTML page with landscapes side by side, on one scale, turning together.

    The page needs no network: plotly.js, the records and their settings are in it. It
    can be used with a mouse, fingers, or a keyboard, and has the losses as a table. In
    print, without JavaScript or without WebGL it shows the pictures of `surface`.

    Args:
        planes: by the name of their model.
        title: of the page.
        text: a paragraph below the title.
        top: the highest loss that is drawn; see `Scale`.
        loss: the name of the loss.

    Raises:
        ValueError: as `Scale.of`.
    """
    planes = named(planes)
    whole = render(
        "landscape.html.j2",
        title=title,
        text=text,
        planes=planes,
        landscapes=landscapes(planes, "landscape", top=top, loss=loss),
        records={name: plane.to_dict() for name, plane in planes.items()},
    )
    return str(whole)


def share_plotly(pages: Mapping[str, str]) -> dict[str, str]:
    """Change the pages of one folder to load plotly.js from a file beside them.

    Args:
        pages: by their file's name, as `page` returns them.

    Returns:
        The pages, smaller by plotly.js, and ``plotly.min.js``, by their file's name.
    """
    inside, beside = f"<script>{plotly()}</script>", "plotly.min.js"
    link = f'<script src="{beside}"></script>'
    linked = {name: str(text).replace(inside, link) for name, text in pages.items()}
    return {**linked, beside: str(plotly())}


def render(template: str, **context: Any) -> Markup:
    """Fill in a template of ``pictures/templates``; the values are escaped.

    Pages extend ``base.html.j2`` and fill its blocks ``title`` and ``content``.

    Args:
        template: name of its file.
        **context: values of the template's names; a missing one is an error.
    """
    return Markup(_templates().get_template(template).render(**context))


def landscapes(
    planes: Mapping[str, Plane],
    prefix: str,
    *,
    top: float | None = None,
    loss: str = "training loss",
    captions: Mapping[str, str] | None = None,
) -> Markup:
    """Return landscapes that turn together, their buttons, and a sentence about them.

    Args:
        planes: by the name of their model.
        prefix: of the ids in the page; the picture of the ``k``-th is ``prefix-k``.
        top: the highest loss that is drawn; see `Scale`.
        loss: the name of the loss.
        captions: below each picture, by name.
    """
    scale = Scale.of(planes.values(), top)
    looks = view(planes.values(), scale)
    said = captions or {name: _caption(name, scale) for name in planes}
    figures = [
        figure(
            _surface(plane, scale, loss, looks),
            f"{prefix}-{k}",
            said[name],
            relief(plane, scale, loss, looks),
            turns=f"Loss landscape of {name or 'the model'}. Arrow keys turn it.",
        )
        for k, (name, plane) in enumerate(planes.items())
    ]
    return render(
        "landscapes.html.j2",
        figures=figures,
        buttons=_BUTTONS,
        seen=seen(planes, loss),
    )


def figure(
    drawn: go.Figure, name: str, caption: str, still: Figure, turns: str = ""
) -> Markup:
    """Return a plotly figure with its caption, and the picture that can replace it.

    Args:
        drawn: its template is dropped; the page has its own, for light and for dark.
        name: id in the page.
        caption: below the figure.
        still: for print, and for browsers that cannot draw the figure.
        turns: the description of a figure that arrow keys turn; empty for others.
    """
    text: Any = drawn.to_json()
    drawing = json.loads(text)
    drawing["layout"].pop("template", None)
    return render(
        "figure.html.j2",
        drawing=drawing,
        name=name,
        caption=caption,
        still=_address(still, "png" if turns else "svg"),
        turns=turns,
    )


@cache
def plotly() -> Markup:
    """Return plotly.js, 5 MB of JavaScript."""
    return Markup(get_plotlyjs())


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("flatmin.pictures"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    found.policies["json.dumps_kwargs"] = {"allow_nan": False}
    found.globals |= {
        "plotly": plotly,
        "megabytes": f"{len(plotly().encode()) / 1e6:.1f}",
        "version": get_plotlyjs_version(),
    }
    return found


def _address(still: Figure, kind: Literal["svg", "png"]) -> str:
    content = base64.b64encode(encoded(still, kind)).decode()
    return f"data:image/{'svg+xml' if kind == 'svg' else kind};base64,{content}"


def _surface(
    plane: Plane, scale: Scale, loss: str, looks: tuple[float, float]
) -> go.Figure:
    """Draw a surface that ends at the top, and where the loss is NaN."""
    x, y, z = (side.astype("float32") for side in cut(plane, scale, _POINTS))
    step = (scale.top - scale.low) / 12
    # plotly drops triangles beyond the axis, and rounding may put the rim there.
    end = scale.top + step / 100
    lines = {"start": scale.low, "end": scale.top, "size": step}
    drawn = go.Figure(
        go.Surface(
            x=x,
            y=y,
            z=z,
            cmin=scale.low,
            cmax=scale.top,
            colorscale="Viridis",
            showscale=False,
            contours={"z": {"show": True, "color": "white", **lines}},
            hovertemplate="loss %{z:.4g}<extra></extra>",
        )
    )
    for name, a, b in plane.marks:
        drawn.add_scatter3d(
            x=[a], y=[b], z=[scale.low], mode="markers+text", text=[escape(name)],
            marker={"size": 4}, showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    drawn.update_layout(
        scene={
            "xaxis": {"title": escape(plane.labels[0]), "range": list(scale.a)},
            "yaxis": {"title": escape(plane.labels[1]), "range": list(scale.b)},
            "zaxis": {"title": escape(loss), "range": [scale.low, end]},
            "aspectratio": {"x": 1, "y": 1, "z": 0.85},
            "camera": _camera(*looks),
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        height=400,
    )
    return drawn


def _camera(elevation: float, azimuth: float) -> dict[str, dict[str, float]]:
    height, angle = math.radians(elevation), math.radians(azimuth)
    flat = _AWAY * math.cos(height)
    return {
        "eye": {
            "x": flat * math.cos(angle),
            "y": flat * math.sin(angle),
            "z": _AWAY * math.sin(height),
        },
        "center": {"x": 0, "y": 0, "z": -0.12},
    }


def _caption(name: str, scale: Scale) -> str:
    where = f"{name}. " if name else ""
    return f"{where}Where the loss is above {scale.top:.3g}, the surface ends."

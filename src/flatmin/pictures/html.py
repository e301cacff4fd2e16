"""Landscapes to be turned: plotly, in pages that need no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from flatmin.diagnostics.landscape import Plane
from flatmin.pictures._scale import Scale, finer, named

#: What every page with landscapes needs in its ``<style>``.
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid #ccc;
         white-space: nowrap; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; }
.pair figure { flex: 1 1 20rem; min-width: 0; }
.turn { display: flex; flex-wrap: wrap; gap: .4rem; margin: .6rem 0; }
.turn button, .download { font: inherit; padding: .35rem .8rem; border-radius: .3rem;
  border: 1px solid #767676; background: #f5f5f5; color: inherit; cursor: pointer; }
:focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
figure { margin: 0 0 1rem; } figcaption { color: #444; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; }
"""

# Plots are drawn while the page is parsed, before their neighbours take their share of
# the width: measure again. Landscapes of one group are always seen from one side: when
# one is turned, by mouse, finger, button or arrow key, so are the others. A step turns
# by 15 degrees; the camera's elevation stops before it looks along the vertical.
SCRIPT = """
for (const plot of document.querySelectorAll('.js-plotly-plot')) {
  Plotly.Plots.resize(plot);
}
for (const group of document.querySelectorAll('.landscapes')) {
  const plots = [...group.querySelectorAll('.js-plotly-plot')];
  const home = JSON.stringify(plots[0].layout.scene.camera);
  let turning = false;
  const show = (camera, but) => {
    turning = true;
    return Promise.all(plots.filter(plot => plot !== but)
      .map(plot => Plotly.relayout(plot, {'scene.camera': camera})))
      .finally(() => { turning = false; });
  };
  for (const plot of plots) plot.on('plotly_relayout', change => {
    const camera = change['scene.camera'];
    if (camera && !turning) show(camera, plot);
  });
  const step = Math.PI / 12;
  const move = (around, up, closer) => {
    const camera = JSON.parse(JSON.stringify(plots[0].layout.scene.camera));
    const {x, y, z} = camera.eye;
    const away = Math.hypot(x, y, z) * closer;
    const azimuth = Math.atan2(y, x) + around * step;
    const height = Math.max(-1.4, Math.min(1.4,
      Math.asin(z / Math.hypot(x, y, z)) + up * step));
    camera.eye = {x: away * Math.cos(height) * Math.cos(azimuth),
                  y: away * Math.cos(height) * Math.sin(azimuth),
                  z: away * Math.sin(height)};
    return show(camera);
  };
  const moves = {
    left: () => move(-1, 0, 1), right: () => move(1, 0, 1),
    up: () => move(0, 1, 1), down: () => move(0, -1, 1),
    closer: () => move(0, 0, 0.85), away: () => move(0, 0, 1 / 0.85),
    reset: () => show(JSON.parse(home)),
  };
  const keys = {ArrowLeft: 'left', ArrowRight: 'right', ArrowUp: 'up',
                ArrowDown: 'down', '+': 'closer', '-': 'away', Home: 'reset'};
  for (const button of group.querySelectorAll('[data-turn]')) {
    button.addEventListener('click', () => moves[button.dataset.turn]());
  }
  for (const picture of group.querySelectorAll('[data-keys]')) {
    picture.addEventListener('keydown', event => {
      const name = keys[event.key];
      if (!name || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      moves[name]();
    });
  }
}
for (const link of document.querySelectorAll('.download')) {
  const text = document.getElementById(link.dataset.of).textContent;
  link.href = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
}
"""

_BUTTONS = {
    "left": "◀ turn left",
    "right": "turn right ▶",
    "up": "▲ up",
    "down": "▼ down",
    "closer": "+ closer",
    "away": "- away",
    "reset": "reset",
}


def page(
    planes: Mapping[str, Plane] | Plane,
    *,
    title: str = "Loss landscapes",
    text: str = "",
    top: float | None = None,
    loss: str = "training loss",
) -> str:
    """One HTML page with landscapes side by side, on one scale, that turn together.

    The page needs no network: plotly.js, the records and their settings are in it. It
    can be used with a mouse, fingers, or a keyboard, and has the losses as a table.

    Args:
        planes: by the name of their model.
        title: of the page.
        text: a paragraph below the title.
        top: the highest loss that is drawn; see `Scale`.
        loss: what the loss is called.

    Raises:
        ValueError: as `Scale.of`.
    """
    planes = named(planes)
    records = {name: plane.to_dict() for name, plane in planes.items()}
    tables = "".join(_table(name, plane) for name, plane in planes.items())
    body = f"""<h1>{escape(title)}</h1>
<p>{escape(text)}</p>
{landscapes(planes, "landscape", top=top, loss=loss)}
<p><a class="download" data-of="records" download="landscape.json">Download the
losses and settings</a></p>
<details><summary>The losses as tables</summary>{tables}</details>
{embedded("records", records)}"""
    return document(title, body)


def document(title: str, body: str, style: str = "") -> str:
    """A whole page around a body that is HTML already."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}{style}</style>
<script>{get_plotlyjs()}</script>
</head>
<body>
{body}
<script>{SCRIPT}</script>
</body>
</html>
"""


def landscapes(
    planes: Mapping[str, Plane],
    prefix: str,
    *,
    top: float | None = None,
    loss: str = "training loss",
    captions: Mapping[str, str] | None = None,
) -> str:
    """Landscapes that turn together, and the buttons that turn them.

    Args:
        planes: by the name of their model.
        prefix: of the ids in the page; the picture of the ``k``-th is ``prefix-k``.
        top: the highest loss that is drawn; see `Scale`.
        loss: what the loss is called.
        captions: by name; what is said below each picture.
    """
    scale = Scale.of(planes.values(), top)
    said = captions or {name: _caption(name, scale) for name in planes}
    figures = "".join(
        _focusable(
            figure(_surface(plane, scale, loss), f"{prefix}-{k}", said[name]), name
        )
        for k, (name, plane) in enumerate(planes.items())
    )
    buttons = "".join(
        f'<button type="button" data-turn="{turn}">{label}</button>'
        for turn, label in _BUTTONS.items()
    )
    return (
        f'<div class="landscapes"><div class="pair">{figures}</div><div class="turn" '
        f'role="group" aria-label="Turn the landscapes">{buttons}</div></div>'
    )


def figure(drawn: go.Figure, name: str, caption: str) -> str:
    """A plotly figure with its caption; the page brings plotly.js."""
    html = drawn.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displaylogo": False, "responsive": True},
    )
    return f"<figure>{html}<figcaption>{escape(caption)}</figcaption></figure>"


def embedded(name: str, value: Any) -> str:
    """JSON inside a page, where scripts find it and nothing in it is HTML."""
    text = json.dumps(value, allow_nan=False)
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{escape(name)}">{safe}</script>'


def _surface(plane: Plane, scale: Scale, loss: str) -> go.Figure:
    """A surface that ends at the top, and where the loss is no number."""
    a, b, height = finer(plane, scale, times=4)
    step = (scale.top - scale.low) / 12
    lines = {"start": scale.low, "end": scale.top, "size": step}
    drawn = go.Figure(
        go.Surface(
            x=a.round(6).tolist(),
            y=b.round(6).tolist(),
            z=[
                [None if z != z else round(z, 5) for z in row]
                for row in height.tolist()
            ],
            cmin=scale.low,
            cmax=scale.top,
            colorscale="Viridis",
            showscale=False,
            contours={"z": {"show": True, "color": "white", **lines}},
            hovertemplate="loss %{z:.4g}<extra></extra>",
        )
    )
    for name, x, y in plane.marks:
        drawn.add_scatter3d(
            x=[x], y=[y], z=[scale.low], mode="markers+text", text=[escape(name)],
            marker={"size": 4, "color": "black"}, showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    drawn.update_layout(
        scene={
            "xaxis": {"title": escape(plane.labels[0]), "range": list(scale.a)},
            "yaxis": {"title": escape(plane.labels[1]), "range": list(scale.b)},
            "zaxis": {"title": escape(loss), "range": [scale.low, scale.top]},
            "aspectratio": {"x": 1, "y": 1, "z": 0.85},
            "camera": {
                "eye": {"x": 1.35, "y": -1.6, "z": 0.95},
                "center": {"x": 0, "y": 0, "z": -0.12},
            },
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        height=400,
    )
    return drawn


def _focusable(html: str, name: str) -> str:
    label = escape(f"Loss landscape of {name or 'the model'}. Arrow keys turn it.")
    opening = f'<figure tabindex="0" data-keys aria-label="{label}">'
    return html.replace("<figure>", opening, 1)


def _caption(name: str, scale: Scale) -> str:
    where = f"{name}. " if name else ""
    return f"{where}Where the loss is above {scale.top:.3g}, the surface ends."


def _table(name: str, plane: Plane) -> str:
    u, v = map(escape, plane.labels)
    head = "".join(f'<th scope="col">{a:.3g}</th>' for a in plane.a)
    rows = "".join(
        f'<tr><th scope="row">{b:.3g}</th>'
        + "".join(f"<td>{z:.4g}</td>" for z in row)
        + "</tr>"
        for b, row in zip(plane.b, plane.losses, strict=True)
    )
    return (
        f"<h2>{escape(name)}</h2><p>Columns: {u}; rows: {v}.</p>"
        f'<div class="wide"><table><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )

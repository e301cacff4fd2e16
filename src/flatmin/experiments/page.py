"""``report.html``: one file that works without a network, and escapes all it shows."""

from __future__ import annotations

from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from flatmin.experiments import plots
from flatmin.experiments.config import Comparison
from flatmin.experiments.data import Data
from flatmin.experiments.summary import COLUMNS, Curve, Row, headline, settings
from flatmin.experiments.train import noise_name, percent

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; }
.lead { font-size: 1.15rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid #ccc;
         white-space: nowrap; }
th:nth-child(2), td:nth-child(2) { text-align: left; }
tr.first td { border-top: 2px solid #333; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; }
.pair figure { flex: 1 1 20rem; min-width: 0; }
figure { margin: 0 0 1rem; } figcaption { color: #444; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; }
"""

# Plots are drawn while the page is parsed, before their neighbours take their share of
# the width: measure again. Turning one landscape turns the other, so that the two are
# always seen from one side.
_LINK = """
for (const plot of document.querySelectorAll('.js-plotly-plot')) {
  Plotly.Plots.resize(plot);
}
for (const pair of document.querySelectorAll('.pair.linked')) {
  const plots = [...pair.querySelectorAll('.js-plotly-plot')];
  let turning = false;
  for (const plot of plots) plot.on('plotly_relayout', change => {
    const camera = change['scene.camera'];
    if (!camera || turning) return;
    turning = true;
    Promise.all(plots.filter(other => other !== plot)
      .map(other => Plotly.relayout(other, {'scene.camera': camera})))
      .finally(() => { turning = false; });
  });
}
"""


def render(
    config: Comparison,
    data: Data,
    rows: list[Row],
    curve_of: dict[Any, Curve],
    landscapes: dict[str, Any],
) -> str:
    """The page, as text."""
    sections = [
        _setting(noise, data, rows, curve_of, landscapes) for noise in settings(rows)
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>flatmin: sharpness-aware minimization compared</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
<script>{get_plotlyjs()}</script>
</head>
<body>
<h1>Sharpness-aware minimization, compared</h1>
<p class="lead">{escape(headline(rows))}</p>
<p>{escape(_about(config, data))}</p>
<div class="wide">{_table(rows)}</div>
<p>{escape(_reading(config))}</p>
{"".join(sections)}
<h2>Settings</h2>
<pre>{escape(config.model_dump_json(indent=2))}</pre>
<script>{_LINK}</script>
</body>
</html>
"""


def _about(config: Comparison, data: Data) -> str:
    channels, height, width = data.x.shape[1:]
    names = ", ".join(data.classes[:20]) + (", ..." if len(data.classes) > 20 else "")
    return (
        f"Data: {config.data}, {len(data.y)} training and {len(data.test_y)} test "
        f"images ({channels} x {height} x {width}), {data.split}. "
        f"{len(data.classes)} classes: {names}."
    )


def _reading(config: Comparison) -> str:
    return (
        "Error: on clean test labels after the last epoch, mean of the seeds and 95 % "
        "interval (Student). Train error: on the training labels, noise included; 0 "
        "means the noise was memorised. Sharpness: L(w + eps) - L(w) on the training "
        f"set, one ascent step of radius {config.sharpness_rho:g}. Gradient examples: "
        "SAM takes two gradients per example, so SGD at equal cost has twice the "
        "epochs. Seconds: training alone, on the machine in environment.jsonl."
    )


def _table(rows: list[Row]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in COLUMNS)
    body = ""
    for i, row in enumerate(rows):
        first = i == 0 or rows[i - 1].noise != row.noise
        kind = ' class="first"' if first else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row.cells())
        body += f"<tr{kind}>{cells}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _setting(
    noise: float,
    data: Data,
    rows: list[Row],
    curve_of: dict[Any, Curve],
    landscapes: dict[str, Any],
) -> str:
    title = f"{percent(noise)} label noise"
    curves = _figure(
        plots.curves(noise, rows, curve_of),
        f"curves-{noise_name(noise)}",
        f"Test error over training with {title}. Band: range of the seeds.",
    )
    drawn = plots.landscapes_of(landscapes, noise)
    top = plots.ceiling(len(data.classes))
    surfaces = "".join(
        _figure(
            plots.surface(landscapes["axis"], drawn[row.arm], top),
            f"landscape-{noise_name(noise)}-{row.arm}",
            f"{row.label}: training loss around the minimum it found. Directions are "
            f"filter-normalised; losses above {top:.1f} are cut off.",
        )
        for row in rows
        if row.noise == noise and row.arm in drawn
    )
    return f'<h2>{title}</h2>{curves}<div class="pair linked">{surfaces}</div>'


def _figure(figure: go.Figure, name: str, caption: str) -> str:
    html = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displaylogo": False, "responsive": True},
    )
    return f"<figure>{html}<figcaption>{escape(caption)}</figcaption></figure>"

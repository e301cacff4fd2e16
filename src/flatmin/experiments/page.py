"""``report.html``: one file that works without a network, and escapes all it shows."""

from __future__ import annotations

from html import escape
from typing import Any

from flatmin.experiments import plots
from flatmin.experiments.comparison import noise_name
from flatmin.experiments.config import Comparison
from flatmin.experiments.data import shape
from flatmin.experiments.datasets import DataSet
from flatmin.experiments.finished import percent
from flatmin.experiments.landscape import ceiling
from flatmin.experiments.summary import COLUMNS, Curve, Row, headline, settings
from flatmin.pictures import html

_STYLE = """
.lead { font-size: 1.15rem; }
th:nth-child(2), td:nth-child(2) { text-align: left; }
tr.first td { border-top: 2px solid #333; }
"""


def render(
    config: Comparison,
    data: DataSet,
    rows: list[Row],
    curve_of: dict[Any, Curve],
    planes: plots.Planes,
) -> str:
    """The page, as text."""
    sections = [
        _setting(noise, data, rows, curve_of, planes) for noise in settings(rows)
    ]
    body = f"""<h1>Sharpness-aware minimization, compared</h1>
<p class="lead">{escape(headline(rows))}</p>
<p>{escape(_about(config, data))}</p>
<div class="wide">{_table(rows)}</div>
<p>{escape(_reading(config))}</p>
{"".join(sections)}
<h2>Settings</h2>
<pre>{escape(config.model_dump_json(indent=2))}</pre>"""
    return html.document("flatmin: sharpness-aware minimization compared", body, _STYLE)


def _about(config: Comparison, data: DataSet) -> str:
    channels, height, width = shape(data)
    names = ", ".join(data.classes[:20]) + (", ..." if len(data.classes) > 20 else "")
    return (
        f"Data: {config.data}, {len(data.train.y)} training and "
        f"{len(data.test.y)} test images ({channels} x {height} x {width}), "
        f"{data.split}. {len(data.classes)} classes: {names}."
    )


def _reading(config: Comparison) -> str:
    return (
        "Error: on clean test labels after the last epoch, mean of the seeds and 95 % "
        "interval (Student). Train error: on the training labels, noise included; 0 "
        "means the noise was memorised. Sharpness: L(w + eps) - L(w) on the training "
        f"set, one ascent step of radius {config.sharpness_rho:g}. Lambda_max: largest "
        "eigenvalue of the Hessian of the training loss. Gradient examples: "
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
    data: DataSet,
    rows: list[Row],
    curve_of: dict[Any, Curve],
    planes: plots.Planes,
) -> str:
    title = f"{percent(noise)} label noise"
    name = noise_name(noise)
    curves = html.figure(
        plots.curves(noise, rows, curve_of),
        f"curves-{name}",
        f"Test error over training with {title}. Band: range of the seeds.",
    )
    drawn = plots.planes_of(planes, rows, noise)
    if not drawn:
        return f"<h2>{title}</h2>{curves}"
    top = ceiling(len(data.classes))
    captions = {
        label: f"{label}: training loss around the minimum it found. Directions are "
        f"filter-normalised; the surface ends at {top:.1f}."
        for label in drawn
    }
    surfaces = html.landscapes(drawn, f"landscape-{name}", top=top, captions=captions)
    records = {label: plane.to_dict() for label, plane in drawn.items()}
    data_of = html.embedded(f"records-{name}", records)
    return f"<h2>{title}</h2>{curves}{surfaces}{data_of}"

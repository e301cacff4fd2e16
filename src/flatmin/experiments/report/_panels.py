"""What figures show: learning curves, and results against a number in the labels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from flatmin.experiments.report._numbers import Arm, Report, Row
from flatmin.experiments.report._tables import QUANTITIES

_NUMBER = re.compile(r"\s*([-+]?\d+(?:\.\d+)?)\s*%?\s*")

#: Fewer points are no line.
_POINTS = 3


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
    """Axes and their lines."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]


def curves(report: Report) -> list[Panel]:
    """Test error over training, of every arm that has runs; cells that share runs once.

    Lines in one panel differ in the heading "method", or in the last one if none is
    called so.
    """
    chosen = _compared(report)
    panels: dict[tuple[str, ...], list[Line]] = {}
    drawn: set[str] = set()
    for row in report.rows:
        if row.cell.folder not in drawn:
            drawn.add(row.cell.folder)
            lines = panels.setdefault(_others(row, chosen), [])
            lines += _curves(row, row.cell.labels[chosen])
    return [
        Panel(", ".join(title), "gradient examples", "test error %", tuple(lines))
        for title, lines in panels.items()
        if lines
    ]


def trends(report: Report) -> list[Panel]:
    """Results against the first heading whose labels are three or more numbers."""
    done = [row for row in report.rows if _is_known(row)]
    at = next((k for k in range(len(report.recipe.headings)) if _numeric(done, k)), -1)
    if at < 0:
        return []
    chosen = _compared(report)
    panels: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    for row in done:
        key = (*_others(row, at, chosen), QUANTITIES[row.cell.metric])
        name = "ours" if chosen == at else row.cell.labels[chosen]
        panels.setdefault(key, {}).setdefault(name, []).append(row)
    drawn = []
    for (*title, quantity), rows_of in panels.items():
        lines = tuple(
            _trend(name, rows, at)
            for name, rows in rows_of.items()
            if len(rows) >= _POINTS
        )
        if lines:
            heading = report.recipe.headings[at]
            drawn.append(Panel(", ".join(title), heading, quantity, lines))
    return drawn


def _is_known(row: Row) -> bool:
    return row.reported is not None and math.isfinite(row.reported.mean)


def _compared(report: Report) -> int:
    headings = report.recipe.headings
    return headings.index("method") if "method" in headings else len(headings) - 1


def _others(row: Row, *but: int) -> tuple[str, ...]:
    return tuple(label for k, label in enumerate(row.cell.labels) if k not in but)


def _curves(row: Row, name: str) -> list[Line]:
    several = len(row.arms) > 1
    return [
        _curve(arm, f"{name} {arm.name}" if several else name)
        for arm in row.arms
        if any(run.epochs for run in arm.runs)
    ]


def _curve(arm: Arm, name: str) -> Line:
    """As far as every seed that has begun has come; the band is the seeds' range."""
    epochs = list(zip(*(run.epochs for run in arm.runs if run.epochs), strict=False))
    errors = [[one.test_error for one in at] for at in epochs]
    return Line(
        name=name,
        x=tuple(at[0].gradient_examples for at in epochs),
        y=tuple(sum(at) / len(at) for at in errors),
        low=tuple(map(min, errors)),
        high=tuple(map(max, errors)),
    )


def _numeric(rows: Iterable[Row], heading: int) -> bool:
    labels = {row.cell.labels[heading] for row in rows}
    return len(labels) >= _POINTS and all(map(_NUMBER.fullmatch, labels))


def _number(label: str) -> float:
    match = _NUMBER.fullmatch(label)
    assert match is not None
    return float(match[1])


def _trend(name: str, rows: list[Row], heading: int) -> Line:
    """The reported arms; the band is the 95 % interval."""
    points = []
    paper = []
    for row in rows:
        x = _number(row.cell.labels[heading])
        arm = row.reported
        assert arm is not None
        points.append((x, arm.mean, arm.interval or 0.0))
        if row.cell.paper:
            paper.append((x, row.cell.paper.value))
    x, y, spread = zip(*sorted(points), strict=True)
    return Line(
        name=name,
        x=x,
        y=y,
        low=tuple(a - b for a, b in zip(y, spread, strict=True)),
        high=tuple(a + b for a, b in zip(y, spread, strict=True)),
        paper=tuple(sorted(paper)),
    )

"""The panels of figures: learning curves, and results against a number in labels."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from flatmin.experiments.recipes._recipe import Metric
from flatmin.experiments.report import _words
from flatmin.experiments.report._numbers import Arm, Report, Row
from flatmin.experiments.report._words import QUANTITIES
from flatmin.experiments.report.figures import COST, Line, Panel, curve
from flatmin.experiments.tasks import task_of

_NUMBER = re.compile(r"([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)(?: ?%)?")

#: A line has at least so many points.
_POINTS = 3

#: An axis that spans this ratio is logarithmic.
_WIDE = 1000


def curves(report: Report) -> list[Panel]:
    """Draw the test error over training, for arms that were tested more than once.

    Cells that share runs are drawn once. Lines in one panel differ in the heading
    "method"; without it, in the last heading that is the same in cells that share runs.
    """
    rows_of: dict[str, list[Row]] = {}
    for row in report.rows:
        rows_of.setdefault(row.cell.folder, []).append(row)
    headings = [k for k in _all(report) if all(map(_same(k), rows_of.values()))]
    compared = _compared(report, headings)
    panels: dict[tuple[str, ...], list[Line]] = {}
    for row, *_ in rows_of.values():
        title = tuple(row.cell.labels[k] for k in headings if k != compared)
        name = _label(row, compared)
        panels.setdefault(title, []).extend(_curves(row, name))
    quantity = QUANTITIES[_score(report.rows[0])]
    return [
        Panel(", ".join(title), COST, quantity, tuple(lines))
        for title, lines in panels.items()
        if lines
    ]


def trends(report: Report) -> list[Panel]:
    """Draw results against the last heading whose labels are three or more numbers.

    Lines in one panel differ in the heading "method"; without it, in the last other.
    """
    known = [row for row in report.rows if _is_known(row)]
    at = next((k for k in reversed(_all(report)) if _numeric(known, k)), None)
    if at is None:
        return []
    others = [k for k in _all(report) if k != at]
    compared = _compared(report, others)
    panels: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    for row in known:
        title = tuple(row.cell.labels[k] for k in others if k != compared)
        lines = panels.setdefault((*title, QUANTITIES[row.cell.metric]), {})
        lines.setdefault(_label(row, compared), []).append(row)
    return [
        _against(report.recipe.headings[at], title, quantity, lines)
        for (*title, quantity), bundle in panels.items()
        if (lines := _trends(bundle, at))
    ]


def _score(row: Row) -> Metric:
    """Return the metric that learning curves show."""
    arms = row.cell.arms
    forecast = bool(arms) and arms[0].horizon is not None
    return "test_mse" if forecast else "test_error"


def _all(report: Report) -> range:
    return range(len(report.recipe.headings))


def _same(heading: int) -> Callable[[list[Row]], bool]:
    return lambda rows: len({row.cell.labels[heading] for row in rows}) == 1


def _compared(report: Report, headings: Sequence[int]) -> int | None:
    """Return the heading in which lines differ; None if there is one line."""
    names = {report.recipe.headings[k]: k for k in headings}
    return names.get("method", headings[-1] if headings else None)


def _label(row: Row, heading: int | None) -> str:
    return "ours" if heading is None else row.cell.labels[heading]


def _trends(bundle: dict[str, list[Row]], at: int) -> tuple[Line, ...]:
    long = {name: rows for name, rows in bundle.items() if len(rows) >= _POINTS}
    return tuple(_trend(name, rows, at) for name, rows in long.items())


def _against(
    heading: str, title: Sequence[str], quantity: str, lines: tuple[Line, ...]
) -> Panel:
    x = [x for line in lines for x in line.x]
    log = min(x) > 0 and max(x) >= _WIDE * min(x)
    return Panel(", ".join(title), heading, quantity, lines, log)


def _is_known(row: Row) -> bool:
    return row.reported is not None and math.isfinite(row.reported.mean)


def _curves(row: Row, name: str) -> list[Line]:
    several = len(row.arms) > 1
    lines = (
        curve(f"{name}, {_words.arm(arm)}" if several else name, _points(arm))
        for arm in row.arms
    )
    return [line for line in lines if len(line.x) > 1]


def _points(arm: Arm) -> list[list[tuple[float, float]]]:
    """Return cost and test error at each test of every run that has been tested."""
    score = task_of(arm.own).score
    return [
        [(epoch["gradient_examples"], epoch[score]) for epoch in run.epochs]
        for run in arm.runs
        if run.epochs
    ]


def _numeric(rows: Iterable[Row], heading: int) -> bool:
    labels = {row.cell.labels[heading] for row in rows}
    return len(labels) >= _POINTS and all(map(_NUMBER.fullmatch, labels))


def _number(label: str) -> float:
    match = _NUMBER.fullmatch(label)
    assert match is not None
    return float(match[1])


def _trend(name: str, rows: list[Row], heading: int) -> Line:
    """Draw a line through the reported arms; its band is the 95 % interval."""
    points = []
    paper = []
    for row in rows:
        x = _number(row.cell.labels[heading])
        arm = row.reported
        assert arm is not None
        points.append((x, arm.mean, arm.interval or 0.0))
        if row.cell.paper and not row.smoke:
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

"""The table of a task, its runs as CSV, and error against seconds as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from study import BASE, SAM, Tested

from flatmin.experiments.config import Experiment
from flatmin.experiments.intervals import interval, mean, paired
from flatmin.experiments.table import Column, Table
from flatmin.experiments.tasks import task_of

mpl.use("agg")


def table(task: str, tested: Sequence[Tested]) -> Table:
    """Make a table of means with Student's 95 % intervals, and paired differences.

    The average of the weights comes from the same runs, so that it costs nothing.
    """
    unit = _unit(tested[0].chosen)
    columns = (
        Column("method", left=True),
        Column("steps"),
        Column("rate"),
        Column("rho"),
        Column(unit),
        Column("this - best base"),
        Column("this - SAM"),
        Column(f"{unit}, averaged"),
        Column("test loss, averaged"),
        Column("calibration error %, averaged"),
        Column("gradient examples"),
        Column("seconds"),
    )
    return Table(task, columns, tuple(_rows(tested)))


def _unit(experiment: Experiment) -> str:
    score = task_of(experiment).score
    words = score.replace("_", " ").replace("mse", "MSE")
    return f"{words}{' %' if score.endswith('error') else ''}"


def _rows(tested: Sequence[Tested]) -> Iterator[tuple[Any, ...]]:
    plain = {one.arm.name: one.scores(averaged=False) for one in tested}
    for one in tested:
        runs, chosen = list(one.results.values()), one.chosen
        yield (
            one.arm.words,
            chosen.steps,
            f"{chosen.lr:g}",
            "" if chosen.method == "sgd" else f"{chosen.rho:g}",
            around(list(plain[one.arm.name].values())),
            *(
                ""
                if one.arm.name == other
                else difference(plain[one.arm.name], plain[other])
                for other in (BASE, SAM)
            ),
            around(list(one.scores(averaged=True).values())),
            *(_number(runs, name) for name in ("test_loss", "test_ece")),
            f"{runs[0]['gradient_examples']:,}",
            f"{mean([run['seconds'] for run in runs]):.1f}",
        )


def _number(runs: Sequence[dict[str, Any]], name: str) -> str:
    """Write a number that only tests of classifiers have."""
    return around([run[name] for run in runs]) if name in runs[0] else ""


def around(values: Sequence[float]) -> str:
    """Write a mean and its interval."""
    half = interval(values)
    return f"{mean(values):.4g}" + ("" if half is None else f" ± {half:.2g}")


def difference(mine: dict[int, float], other: dict[int, float]) -> str:
    """Write the mean difference over the seeds, and its interval."""
    found = paired(list(mine.values()), [other[seed] for seed in mine])
    # Equal runs differ by rounding of the mean alone.
    apart = found.mean if abs(found.mean) > 1e-9 else 0.0
    return f"{apart:+.3g}" + ("" if found.half is None else f" ± {found.half:.2g}")


def picture(task: str, tested: Sequence[Tested], path: Path) -> None:
    """Draw the error of every arm beside its cost, the cheapest first.

    Errors of more than three times the least are written at the rim.
    """
    cost = {one.arm.name: _cost(one) for one in tested}
    rows = sorted(tested, key=lambda one: -cost[one.arm.name])
    scores = [list(one.scores(averaged=False).values()) for one in rows]
    most = 3 * min(map(mean, scores))
    figure = Figure(figsize=(8, 0.32 * len(rows) + 1), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for y, (one, values) in enumerate(zip(rows, scores, strict=True)):
        colour = "tab:blue" if one.chosen.method == "sgd" else "tab:orange"
        middle, half = mean(values), interval(values) or 0
        if middle > most:
            left.annotate(f"{middle:.3g} >", (most, y), ha="right", va="center")
        else:
            left.errorbar(middle, y, xerr=half, fmt="o", ms=4, capsize=2, color=colour)
        right.barh(y, cost[one.arm.name], color=colour)
    left.set_yticks(range(len(rows)), [one.arm.words for one in rows])
    left.set(title=task, xlabel=_unit(tested[0].chosen))
    if max(map(mean, scores)) > most:
        left.set(xlim=(None, most))
    right.set(title="cost", xlabel="gradient examples")
    right.xaxis.set_major_locator(MaxNLocator(2))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _cost(one: Tested) -> float:
    return mean([run["gradient_examples"] for run in one.results.values()])

"""The table of a task, its runs as CSV, and error against seconds as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from study import Tested

from flatmin.experiments.intervals import interval, mean, paired
from flatmin.experiments.table import Column, Table
from flatmin.experiments.tasks import task_of

#: Differences are taken to these: the best base that validation finds, and SAM.
BASE, SAM = "base-chosen", "sam"

mpl.use("agg")


def table(task: str, tested: Sequence[Tested]) -> Table:
    """Make a table of means with Student's 95 % intervals, and paired differences.

    The average of the weights comes from the same runs, so that it costs nothing.
    """
    score = task_of(tested[0].chosen).score
    unit = f"{score.replace('_', ' ')}{' %' if score.endswith('error') else ''}"
    columns = (
        Column("method", left=True),
        Column("steps"),
        Column("rate"),
        Column("rho"),
        Column(unit),
        Column("this - best base"),
        Column("this - SAM"),
        Column(f"{unit}, averaged"),
        Column("test loss"),
        Column("gradient examples"),
        Column("seconds"),
    )
    return Table(task, columns, tuple(_rows(tested)))


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
            around([run["last_loss"] for run in runs])
            if "last_loss" in runs[0]
            else "",
            f"{runs[0]['gradient_examples']:,}",
            f"{mean([run['seconds'] for run in runs]):.1f}",
        )


def around(values: Sequence[float]) -> str:
    """Write a mean and its interval."""
    half = interval(values)
    return f"{mean(values):.4g}" + ("" if half is None else f" ± {half:.2g}")


def difference(mine: dict[int, float], other: dict[int, float]) -> str:
    """Write the mean difference over the seeds, and its interval."""
    both = [seed for seed in mine if seed in other]
    found = paired([mine[s] for s in both], [other[s] for s in both])
    return f"{found.mean:+.3g}" + ("" if found.half is None else f" ± {found.half:.2g}")


def runs(tested: Sequence[Tested]) -> Table:
    """Make a table of every tested run."""
    return Table.of(
        [
            {
                "arm": one.arm.name,
                "steps": one.chosen.steps,
                "lr": one.chosen.lr,
                "rho": one.chosen.rho,
                "seed": seed,
                **{k: v for k, v in run.items() if isinstance(v, int | float)},
            }
            for one in tested
            for seed, run in one.results.items()
        ]
    )


def picture(task: str, tested: Sequence[Tested], path: Path) -> None:
    """Draw error against seconds, a point and its interval for every arm."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for one in tested:
        values = list(one.scores(averaged=False).values())
        seconds = mean([run["seconds"] for run in one.results.values()])
        axes.errorbar(
            seconds, mean(values), interval(values) or 0, fmt="o", ms=4, capsize=2,
            color="tab:orange" if one.chosen.method != "sgd" else "tab:blue",
        )  # fmt: skip
        axes.annotate(
            one.arm.words, (seconds, mean(values)), xytext=(4, 2),
            textcoords="offset points", fontsize=7,
        )  # fmt: skip
    axes.set(title=task, xlabel="seconds of training", ylabel="test error")
    figure.savefig(path, dpi=150)

"""Results over seeds: means, intervals, cost; as rows, as tables, as curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy.stats import t as student

from flatmin.experiments.comparison import Run
from flatmin.experiments.finished import percent

#: A run and its result, one per seed.
Cell = list[tuple[Run, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Row:
    """One arm under one share of label noise, over all seeds.

    Attributes:
        noise: share of noisy training labels.
        arm: the arm's name.
        label: how tables and pictures call it.
        n: seeds.
        error: mean test error after the last epoch, per cent.
        interval: half the width of its 95 % confidence interval; None for one seed.
        errors: the test error of each seed.
        train_error: mean error on the training labels, noise included, per cent.
        sharpness: mean one-step sharpness after training.
        lambda_max: mean largest eigenvalue of the Hessian.
        gradient_examples: per run.
        seconds: mean training time per run.
    """

    noise: float
    arm: str
    label: str
    n: int
    error: float
    interval: float | None
    errors: tuple[float, ...]
    train_error: float
    sharpness: float
    lambda_max: float
    gradient_examples: int
    seconds: float

    def cells(self) -> list[str]:
        """The row as text, in the order of `COLUMNS`."""
        spread = "" if self.interval is None else f" ± {self.interval:.2f}"
        return [
            percent(self.noise),
            self.label,
            f"{self.error:.2f}{spread}",
            str(self.n),
            f"{self.train_error:.1f}",
            f"{self.sharpness:.3g}",
            f"{self.lambda_max:.3g}",
            f"{self.gradient_examples:,}",
            f"{self.seconds:.1f}",
        ]


COLUMNS = (
    "label noise",
    "method",
    "test error %",
    "seeds",
    "train error %",
    "sharpness",
    "lambda_max",
    "gradient examples",
    "seconds",
)


@dataclass(frozen=True, slots=True)
class Curve:
    """Test error over training, in gradient examples; mean and range of the seeds."""

    x: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def cells(results: Cell) -> list[Cell]:
    """The results by setting and arm, in the order they were run."""
    grouped: dict[tuple[float, str], Cell] = {}
    for run, result in results:
        grouped.setdefault((run.noise, run.arm.name), []).append((run, result))
    return list(grouped.values())


def row(cell: Cell) -> Row:
    """The seeds of one setting and arm, taken together."""
    run = cell[0][0]
    results = [result for _, result in cell]

    def mean(name: str) -> float:
        # What could not be measured, as training had diverged, is null in the files.
        values = [result[name] for result in results]
        return math.nan if None in values else sum(values) / len(values)

    errors = tuple(result["test_error"] for result in results)
    return Row(
        noise=run.noise,
        arm=run.arm.name,
        label=run.arm.label,
        n=len(cell),
        error=mean("test_error"),
        interval=interval(errors),
        errors=errors,
        train_error=mean("train_error"),
        sharpness=mean("sharpness"),
        lambda_max=mean("lambda_max"),
        gradient_examples=results[0]["gradient_examples"],
        seconds=mean("seconds"),
    )


def settings(rows: list[Row]) -> list[float]:
    """The shares of label noise, in the order they were run."""
    return list(dict.fromkeys(row.noise for row in rows))


def curve(metrics: list[list[dict[str, Any]]]) -> Curve:
    """From the epochs of every seed of one setting and arm."""
    epochs = [
        [epoch["test_error"] for epoch in at] for at in zip(*metrics, strict=True)
    ]
    return Curve(
        x=[epoch["gradient_examples"] for epoch in metrics[0]],
        mean=[sum(errors) / len(errors) for errors in epochs],
        low=[min(errors) for errors in epochs],
        high=[max(errors) for errors in epochs],
    )


def interval(values: tuple[float, ...]) -> float | None:
    """Half the width of Student's 95 % interval of the mean; None for one value."""
    n = len(values)
    if n < 2:
        return None
    mean = sum(values) / n
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return float(student.ppf(0.975, n - 1)) * deviation / math.sqrt(n)


def terminal_table(rows: list[Row]) -> Table:
    """For rich; fits 80 columns: the seeds are in the title, curvature in the files."""
    title = f"test error after the last epoch: mean ± 95 % interval, {_seeds(rows)}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    short = {
        "label noise": "noise",
        "train error %": "train %",
        "gradient examples": "gradients",
        "seconds": "sec",
    }
    hidden = ("seeds", "lambda_max")
    shown = [i for i, name in enumerate(COLUMNS) if name not in hidden]
    for i in shown:
        justify = "left" if COLUMNS[i] == "method" else "right"
        heading = short.get(COLUMNS[i], COLUMNS[i])
        table.add_column(heading, justify=justify, no_wrap=True)
    for i, one in enumerate(rows):
        if i and rows[i - 1].noise != one.noise:
            table.add_section()
        line = one.cells()
        table.add_row(*(line[i] for i in shown))
    return table


def markdown(rows: list[Row]) -> str:
    """For documents."""
    return piped([COLUMNS, ["---"] * len(COLUMNS), *(one.cells() for one in rows)])


def piped(lines: Iterable[Sequence[str]]) -> str:
    """The lines of a table in Markdown."""
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def headline(rows: list[Row]) -> str:
    """What the comparison found at its first setting, in one sentence."""
    first = {one.arm: one for one in rows if one.noise == rows[0].noise}
    sam, sgd = first["sam"], first["sgd-2x"]
    return (
        f"With {percent(sam.noise)} label noise, the test error is {sam.error:.2f} % "
        f"with SAM and {sgd.error:.2f} % with SGD at equal cost "
        f"(mean of {_seeds(rows)})."
    )


def _seeds(rows: list[Row]) -> str:
    return "1 seed" if rows[0].n == 1 else f"{rows[0].n} seeds"

"""The tables of a comparison, of methods and of classes, and its record."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from flatmin.experiments.compare.plan import BASE
from flatmin.experiments.compare.results import Row, best, best_base, by_setting
from flatmin.experiments.datasets import DataSet
from flatmin.experiments.intervals import interval, mean, paired
from flatmin.experiments.runs.record import Run
from flatmin.experiments.table import Column, Table, counted
from flatmin.experiments.tasks import NO_CLASS, failures

_COLUMNS = (
    Column("method", left=True),
    Column("lr"),
    Column("rho"),
    Column("epochs"),
    Column("validation error %", hidden=True),
    Column("test error %", "test %"),
    Column("fewer errors than the base", "fewer"),
    Column("train error %", "train %", hidden=True),
    Column("gradients", "cost"),
    Column("gradients of the search", hidden=True),
    Column("sharpness", hidden=True),
    Column("lambda_max", hidden=True),
    Column("seconds", hidden=True),
)

READING = (
    "lr, rho, epochs: of all settings that the method tried, those with the lowest "
    "validation error. Test error: of the last epoch, mean of the seeds with 95 % "
    "interval (Student). Fewer errors than the base: mean of the paired differences to "
    "the best base, in points, with 95 % interval; no difference is shown where it "
    "includes 0. Gradients: of one run, relative to one of the best base; of the "
    "search, all candidates together. The longest schedule was chosen by nobody: it is "
    "listed because a base that trains on after its best moment memorises wrong labels."
)


def table(group: list[Row]) -> Table:
    """Make the table of one setting's rows."""
    base = best_base(group)
    seeds = counted(len(base.errors), "seed")
    return Table(
        f"{base.setting.label}: chosen by validation, then tested, {seeds}",
        _COLUMNS,
        tuple(_line(row, base) for row in group),
        strong=(group.index(best(group)),),
    )


def records(rows: list[Row]) -> list[dict[str, Any]]:
    """Return one record per row, in full precision."""
    found: list[dict[str, Any]] = []
    for group in by_setting(rows):
        base = best_base(group)
        for row in group:
            gain = paired(base.errors, row.errors)
            found.append(
                {
                    "setting": row.setting.name,
                    "method": row.label,
                    "chosen": row.choice,
                    "tries": row.tries,
                    "ties": row.ties,
                    "validation_errors": list(row.validation),
                    "test_errors": list(row.errors),
                    "gain": gain.mean,
                    "gain_half_interval": gain.half,
                    "train_error": _known(row.mean("train_error")),
                    "gradient_examples": row.gradient_examples,
                    "search_gradient_examples": row.search_examples,
                    "sharpness": _known(row.mean("sharpness")),
                    "lambda_max": _known(row.mean("lambda_max")),
                    "seconds": row.mean("seconds"),
                    "search_seconds": row.search_seconds,
                    "folders": [str(folder) for folder in row.folders],
                }
            )
    return found


def _line(row: Row, base: Row) -> tuple[str, ...]:
    half, unit, one = interval(row.errors), base.gradient_examples, row.experiment
    gain = paired(base.errors, row.errors)
    return (
        row.label,
        f"{one.lr:g}",
        f"{one.rho:g}" if row.arm != BASE else "",
        str(one.epochs),
        f"{mean(row.validation):.2f}",
        f"{row.error:.2f}{_spread(half)}{failures(row.results)}",
        "" if row is base else f"{gain.mean:+.2f}{_spread(gain.half)}",
        f"{row.mean('train_error'):.1f}",
        f"{row.gradient_examples / unit:.2f}",
        f"{row.search_examples / unit:.1f}",
        _number(row.mean("sharpness")),
        _number(row.mean("lambda_max")),
        f"{row.mean('seconds'):.1f}",
    )


def _spread(half: float | None) -> str:
    return "" if half is None else f" ± {half:.2f}"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _known(value: float) -> float | None:
    """Return None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value


def confusion(row: Row, data: DataSet) -> Tensor:
    """Count how often runs take a class for another, on average over the seeds.

    Args:
        row: of the runs.
        data: what they were tested on.

    Returns:
        ``[classes, classes + 1]``, float64: test images by true and by predicted
        class. The last column counts images without one: the network has diverged.
    """
    n, y = len(data.classes), data.test.y.cpu()
    counts = torch.zeros(n * (n + 1), dtype=torch.float64)
    for folder in row.folders:
        predicted = Run(folder).predictions()["test"]
        column = torch.where(predicted == NO_CLASS, n, predicted)
        counts += torch.bincount((n + 1) * y + column, minlength=len(counts))
    return counts.view(n, n + 1) / len(row.folders)


def errors_by_class(base: Row, rival: Row, data: DataSet) -> Table:
    """List the error of each class under two methods, the largest difference first."""
    found = [_errors(confusion(row, data)) for row in (base, rival)]
    images = data.test.y.cpu().bincount(minlength=len(data.classes))
    order = (found[0] - found[1]).abs().nan_to_num(-1).argsort(descending=True)
    rows = tuple(
        (data.classes[k], int(images[k]), *(f"{one[k]:.1f}" for one in found))
        for k in order.tolist()
        if images[k]
    )
    columns = (
        Column("class", left=True),
        Column("test images"),
        Column(f"error %, {base.label}"),
        Column(f"error %, {rival.label}"),
    )
    return Table("Errors by class", columns, rows)


def most_changed(base: Row, rival: Row, data: DataSet) -> str:
    """Name the confusion that two methods differ in most; empty if there is none."""
    a, b = confusion(base, data), confusion(rival, data)
    change = (a - b).fill_diagonal_(0)
    k = int(change.abs().argmax())
    if not change.flatten()[k]:
        return ""
    real, taken = divmod(k, len(data.classes) + 1)
    names = (*data.classes, "no class")
    return (
        f"The confusion that changed most: {names[real]} taken for "
        f"{names[taken]}, {a[real, taken]:.1f} times with {base.label} and "
        f"{b[real, taken]:.1f} times with {rival.label}, of "
        f"{int(a[real].sum())} test images."
    )


def _errors(counts: Tensor) -> Tensor:
    """Return each class's error in per cent; NaN for a class without test images."""
    return 100 * (1 - counts.diagonal() / counts.sum(1))

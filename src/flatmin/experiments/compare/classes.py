"""Errors class by class, and the most changed confusion of two classes."""

from __future__ import annotations

import torch
from torch import Tensor

from flatmin.experiments.compare.results import Row
from flatmin.experiments.datasets import DataSet
from flatmin.experiments.runs.record import Run
from flatmin.experiments.table import Column, Table


def confusion(row: Row, data: DataSet) -> Tensor:
    """Count how often runs take a class for another, on average over the seeds.

    Args:
        row: of the runs.
        data: what they were tested on.

    Returns:
        ``[classes, classes]``, float64: test images by true and by predicted class.
    """
    n, y = len(data.classes), data.test.y.cpu()
    counts = torch.zeros(n * n, dtype=torch.float64)
    for folder in row.folders:
        predicted = Run(folder).predictions()["test"]
        counts += torch.bincount(n * y + predicted, minlength=n * n)
    return counts.view(n, n) / len(row.folders)


def table(base: Row, rival: Row, data: DataSet) -> Table:
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
    real, taken = divmod(k, len(data.classes))
    return (
        f"The confusion that changed most: {data.classes[real]} taken for "
        f"{data.classes[taken]}, {a[real, taken]:.1f} times with {base.label} and "
        f"{b[real, taken]:.1f} times with {rival.label}, of "
        f"{int(a[real].sum())} test images."
    )


def _errors(counts: Tensor) -> Tensor:
    """Return each class's error in per cent; NaN for a class without test images."""
    return 100 * (1 - counts.diagonal() / counts.sum(1))

"""The table of a comparison, and its record for programs."""

from __future__ import annotations

import math
from typing import Any

from flatmin.experiments.compare.results import Row, best, best_base, by_setting
from flatmin.experiments.intervals import interval, mean, paired
from flatmin.experiments.table import Column, Table, counted

_COLUMNS = (
    Column("method", left=True),
    Column("chosen", left=True),
    Column("validation error %", "valid."),
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
    "Chosen: the settings with the lowest validation error of all that the method "
    "tried. Test error: of the last epoch, mean of the seeds with 95 % interval "
    "(Student). Fewer errors than the base: mean of the paired differences to the best "
    "base, in points, with 95 % interval; no difference is shown where it includes 0. "
    "Gradients: of one run, relative to one of the best base; of the search, "
    "all candidates together. The longest schedule was chosen by nobody: it is listed "
    "because a base that trains on after its best moment memorises wrong labels."
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
    half, unit = interval(row.errors), base.gradient_examples
    gain = paired(base.errors, row.errors)
    return (
        row.label,
        row.choice,
        f"{mean(row.validation):.2f}",
        f"{row.error:.2f}{_spread(half)}",
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

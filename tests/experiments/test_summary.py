import math

import pytest
from rich.console import Console

from flatmin.experiments.comparison import Run
from flatmin.experiments.config import ARMS
from flatmin.experiments.summary import (
    Cell,
    Curve,
    cells,
    curve,
    headline,
    interval,
    markdown,
    row,
    terminal_table,
)
from tests.experiments.helpers import tiny


def results(seeds: int = 2) -> Cell:
    config = tiny(seeds=seeds)
    return [
        (
            Run(config, arm, noise, seed),
            {
                "test_error": 10.0 * k + seed,
                "train_error": 1.5,
                "sharpness": 0.25,
                "lambda_max": 12.5,
                "gradient_examples": 1800,
                "seconds": 2.0,
            },
        )
        for noise in (0.4, 0.0)
        for seed in range(seeds)
        for k, arm in enumerate(ARMS)
    ]


def test_the_interval_is_students() -> None:
    # 12.706 is the 97.5 % quantile for one degree of freedom, 4.303 for two.
    assert interval((1.0, 3.0)) == pytest.approx(
        12.706 * math.sqrt(2) / math.sqrt(2), 1e-4
    )
    assert interval((1.0, 2.0, 3.0)) == pytest.approx(4.303 / math.sqrt(3), 1e-3)


def test_one_seed_has_no_interval() -> None:
    assert interval((1.0,)) is None
    one = row(cells(results(seeds=1))[0])
    assert one.interval is None
    assert one.cells()[2] == "0.00"


def test_seeds_are_taken_together_and_settings_are_not() -> None:
    rows = [row(cell) for cell in cells(results())]
    assert [(one.noise, one.arm, one.error) for one in rows] == [
        (0.4, "sgd", 0.5),
        (0.4, "sgd-2x", 10.5),
        (0.4, "sam", 20.5),
        (0.0, "sgd", 0.5),
        (0.0, "sgd-2x", 10.5),
        (0.0, "sam", 20.5),
    ]
    assert rows[2].errors == (20.0, 21.0)


def test_what_one_seed_could_not_measure_has_no_mean() -> None:
    cell = cells(results())[0]
    cell[1][1]["lambda_max"] = None
    assert row(cell).cells()[5:7] == ["0.25", "nan"]


def test_the_headline_compares_at_equal_cost() -> None:
    rows = [row(cell) for cell in cells(results())]
    assert headline(rows) == (
        "With 40 % label noise, the test error is 20.50 % with SAM and 10.50 % with "
        "SGD at equal cost (mean of 2 seeds)."
    )


def test_a_curve_is_mean_and_range_of_the_seeds() -> None:
    metrics = [
        [
            {"test_error": error, "gradient_examples": 100 * (k + 1)}
            for k, error in enumerate(errors)
        ]
        for errors in ([30.0, 20.0], [50.0, 10.0])
    ]
    assert curve(metrics) == Curve([100, 200], [40.0, 15.0], [30.0, 10.0], [50.0, 20.0])


def test_the_markdown_table_has_every_number() -> None:
    lines = markdown([row(cell) for cell in cells(results())]).splitlines()
    assert len(lines) == 8
    numbers = "0.50 ± 6.35 | 2 | 1.5 | 0.25 | 12.5 | 1,800 | 2.0"
    assert lines[2] == f"| 40 % | SGD | {numbers} |"


def test_the_terminal_table_fits_eighty_columns() -> None:
    console = Console(width=80, record=True, quiet=False, file=None)
    with console.capture() as capture:
        console.print(terminal_table([row(cell) for cell in cells(results())]))
    text = capture.get()
    assert "…" not in text
    assert "SGD 2x epochs" in text
    assert "20.50 ± 6.35" in text

"""From runs to numbers, against the formulas written out."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from flatmin.experiments.recipes._recipe import Cell, Paper, Recipe
from flatmin.experiments.report import _tables
from flatmin.experiments.report._numbers import records
from flatmin.experiments.runs.asked import Asked, sign
from flatmin.experiments.table import Table
from flatmin.experiments.tasks import WORST, diverged
from tests.experiments.report.folders import (
    SAM,
    SGD,
    SGD_2X,
    START,
    begin,
    collected,
    complete,
    epoch,
    finish,
    start,
    tablet,
)


def table(root: Path, recipe: Recipe) -> list[dict[str, str]]:
    text = Table.of(records(collected(root, recipe))).csv()
    return list(csv.DictReader(io.StringIO(text)))


def markdown(root: Path, recipe: Recipe) -> str:
    return _tables.markdown(collected(root, recipe))


def terminal(root: Path, recipe: Recipe) -> str:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(_tables.results(collected(root, recipe)))
    return shown.get()


def one_cell(**fields: Any) -> Cell:
    return Cell("tablet/one", ("a", "SAM"), (SAM,), **fields)


def reported(
    root: Path, cell: Cell, errors: list[float], **result: Any
) -> tuple[dict[str, str], str]:
    """The record of a cell after runs with these errors, and its table."""
    recipe = start(root, tablet(cells=(cell,), seeds=len(errors)))
    finish(root, cell, SAM, errors, **result)
    return table(root, recipe)[0], markdown(root, recipe)


def test_means_and_intervals_are_students_over_the_seeds(tmp_path: Path) -> None:
    errors = [13.1, 13.4, 14.3]
    row, _ = reported(tmp_path, one_cell(paper=Paper(13.4, 0.1)), errors)
    error_of_mean = statistics.stdev(errors) / math.sqrt(3)
    low, high = stats.t.interval(0.95, 2, statistics.mean(errors), error_of_mean)
    assert float(row["mean"]) == pytest.approx((high + low) / 2)
    assert float(row["interval"]) == pytest.approx((high - low) / 2)
    assert row["values"] == "13.1 13.4 14.3"
    assert float(row["difference"]) == pytest.approx(13.6 - 13.4)
    assert float(row["seconds"]) == pytest.approx(61.0)
    assert row["gradient examples"] == "200.0"


def test_one_run_has_no_interval(tmp_path: Path) -> None:
    row, text = reported(tmp_path, one_cell(), [13.1])
    assert (row["mean"], row["interval"], row["difference"]) == ("13.1", "", "")
    assert "| 13.10 | 1 of 1 |" in text


@pytest.mark.parametrize(
    ("metric", "mean"),
    [("test_accuracy", 86.9), ("top5_error", 1.31), ("lambda_max", 24.0)],
)
def test_a_cell_reports_its_metric(metric: Any, mean: float, tmp_path: Path) -> None:
    cell = one_cell(metric=metric, paper=Paper(20.0))
    row, _ = reported(tmp_path, cell, [13.1], lambda_max=24.0)
    assert float(row["mean"]) == pytest.approx(mean)
    assert float(row["difference"]) == pytest.approx(mean - 20.0)


def test_what_was_not_measured_is_no_number(tmp_path: Path) -> None:
    cell = one_cell(metric="lambda_max", paper=Paper(20.0))
    row, text = reported(tmp_path, cell, [13.1, 13.2], lambda_max=None)
    assert (row["mean"], row["difference"], row["values"]) == ("", "", " ")
    assert "| no number | 20 | 2 of 2 |" in text


def test_a_spectrum_is_that_of_its_epoch(tmp_path: Path) -> None:
    spectral = SAM.model_copy(update={"spectrum_at": (1, 100, 200)})
    cells = tuple(
        Cell(
            f"tablet/{k}",
            (str(k), "SAM"),
            (spectral,),
            "lambda_max",
            at=k,
            folder="tablet/f",
        )
        for k in (0, 1, 2)
    )
    recipe = start(tmp_path, tablet(cells=cells, seeds=1))
    finish(tmp_path, cells[0], spectral, [5.0], {"spectrum_at": (1, 2)})
    run = tmp_path / "tablet/f/x1/seed-0/metrics.jsonl"
    first = epoch(1, 50.0, lambda_max=62.5)
    run.write_text(f"{first}\n{epoch(2, 5.0, lambda_max=25.5)}\n".replace("'", '"'))
    assert [row["mean"] for row in table(tmp_path, recipe)] == ["62.5", "25.5", ""]


def test_the_better_length_is_reported_beside_the_other(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet())
    cell = recipe.cells[0]
    finish(tmp_path, cell, SGD, [20.0, 21.0, 22.0])
    finish(tmp_path, cell, SGD_2X, [19.0, 20.0, 21.0])
    one, two = table(tmp_path, recipe)[:2]
    assert (one["arm"], one["reported"], one["mean"]) == ("x1", "false", "21.0")
    assert (two["arm"], two["reported"], two["mean"]) == ("x2", "true", "20.0")
    assert (one["difference"], two["difference"]) == ("", "0.0")
    text = markdown(tmp_path, recipe)
    assert [line for line in text.splitlines() if "| 20 % | SGD |" in line] == [
        "| 20 % | SGD | 20.00 ± 2.48 | 20.0±.25 | +0.00 | 3 of 3 | 400 epochs | 400 | "
        "61.0 s |",
        "| 20 % | SGD | 200 epochs | 21.00 ± 2.48 | 3 of 3 |",
        "| 20 % | SGD | 400 epochs | 20.00 ± 2.48 | 3 of 3 |",
    ]


def test_the_better_length_is_so_by_error_also_for_accuracy(tmp_path: Path) -> None:
    cell = replace(tablet().cells[0], metric="test_accuracy")
    recipe = start(tmp_path, tablet(cells=(cell,), seeds=1))
    finish(tmp_path, cell, SGD, [10.0])
    finish(tmp_path, cell, SGD_2X, [12.0])
    assert [row["reported"] for row in table(tmp_path, recipe)] == ["true", "false"]


def test_top5_chooses_by_the_top5_error(tmp_path: Path) -> None:
    cell = replace(tablet().cells[0], metric="top5_error")
    recipe = start(tmp_path, tablet(cells=(cell,), seeds=1))
    finish(tmp_path, cell, SGD, [10.0], top5_error=2.0)
    finish(tmp_path, cell, SGD_2X, [12.0], top5_error=1.0)
    assert [row["reported"] for row in table(tmp_path, recipe)] == ["false", "true"]


def test_a_cell_waits_for_every_run_of_every_arm(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet())
    cell = recipe.cells[0]
    finish(tmp_path, cell, SGD, [20.0, 21.0, 22.0])
    finish(tmp_path, cell, SGD_2X, [19.0, 20.0])
    begin(tmp_path, cell, SGD_2X, 2, [epoch(1, 60.0)])
    text = markdown(tmp_path, recipe)
    assert "| 20 % | SGD | pending | 20.0±.25 | 5 of 6 |" in text
    assert "| 20 % | SGD | 200 epochs | 21.00 ± 2.48 | 3 of 3 |" in text
    assert "| 20 % | SGD | 400 epochs | 19.50 ± 6.35 | 2 of 3 |" in text
    assert re.search(
        r"20 %, SGD +pending +20.0±.25 +5 of 6", terminal(tmp_path, recipe)
    )
    assert {row["reported"] for row in table(tmp_path, recipe)} == {"false"}
    assert "| pending | 13.4±\\<.1 | 0 of 3 |" in text


def test_seeds_that_were_not_asked_for_do_not_replace_a_missing_one(
    tmp_path: Path,
) -> None:
    recipe = start(tmp_path, tablet())
    cell = recipe.cells[0]
    finish(tmp_path, cell, SGD, [20.0, 21.0, 22.0, 23.0])
    finish(tmp_path, cell, SGD_2X, [19.0, 20.0])
    text = markdown(tmp_path, recipe)
    assert "| pending | 20.0±.25 | 5 of 6 |" in text
    assert "| 200 epochs | 21.50 ± 2.05 | 4 of 3 |" in text
    assert "| 400 epochs | 19.50 ± 6.35 | 2 of 3 |" in text


def test_of_a_large_recipe_cells_without_runs_are_counted(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet(tuple(map(str, range(10, 23)))))
    finish(tmp_path, recipe.cells[1], SAM, [13.0, 13.5, 14.0])
    text = markdown(tmp_path, recipe)
    assert "25 cells pending, without any run yet." in text
    assert len(table(tmp_path, recipe)) == 1
    assert "SGD" not in text


def test_of_a_small_recipe_every_cell_is_listed(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet(tuple(map(str, range(10, 22)))))
    finish(tmp_path, recipe.cells[1], SAM, [13.0, 13.5, 14.0])
    text = markdown(tmp_path, recipe)
    assert text.count("| pending |") == 23
    assert "without any run" not in text


def test_a_number_that_the_paper_quotes_is_shown_as_such(tmp_path: Path) -> None:
    quoted = Cell("tablet/quoted", ("a", "Other"), (), paper=Paper(6.0))
    recipe = complete(tmp_path, tablet(cells=(*tablet().cells, quoted)))
    text = markdown(tmp_path, recipe)
    results, others = text.split("## Quoted by the paper")
    assert "Other" not in results
    assert others.startswith(
        "\n\n| noise | method | paper |\n| --- | --- | ---: |\n| a | Other | 6 |\n"
    )
    assert "Other" not in terminal(tmp_path, recipe)


def test_the_terminal_table_fits_eighty_columns(tmp_path: Path) -> None:
    recipe = complete(tmp_path, tablet())
    shown = terminal(tmp_path, recipe)
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    (line,) = (line for line in shown.splitlines() if "20 %, SGD" in line)
    cells = ["20 %, SGD", "15.00 ± 2.48", "20.0±.25", "-5.00", "3 of 3", "400 epochs"]
    assert re.split("  +", line.strip()) == cells


def test_of_a_smoke_run_no_difference_is_shown(tmp_path: Path) -> None:
    recipe = complete(tmp_path, tablet(), smoke=True)
    assert {row["difference"] for row in table(tmp_path, recipe)} == {""}
    assert "| noise | method | ours | paper | runs |" in markdown(tmp_path, recipe)
    shown = terminal(tmp_path, recipe)
    assert "diff." not in shown
    assert "A smoke run" in shown


def test_a_smoke_run_stays_one_when_another_part_is_trained(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet(seeds=1))
    smoke, real = recipe.cells[1], recipe.cells[3]
    finish(tmp_path, smoke, SAM, [13.0])
    finish(tmp_path, real, SAM, [13.0])
    begun = {**START, "command": ["flatmin", "train", smoke.name, "--smoke"]}
    run = tmp_path / "tablet/noise-20/sam/x1/seed-0"
    (run / "environment.jsonl").write_text(json.dumps(begun) + "\n")
    text = markdown(tmp_path, recipe)
    assert "A smoke run" in text
    assert "| 20 % | SAM | 13.00 | 13.4±\\<.1 |  | 1 of 1 |" in text
    assert "| 40 % | SAM | 13.00 | 13.4±\\<.1 | -0.40 | 1 of 1 |" in text


def test_columns_without_anything_to_say_are_left_out(tmp_path: Path) -> None:
    _, text = reported(tmp_path, one_cell(), [13.1])
    assert "| noise | method | ours | runs | gradient examples | time |" in text
    assert "Arm:" not in text
    assert "Paper:" not in text
    assert "## All arms" not in text


@pytest.mark.parametrize(
    ("labels", "said"), [(("a", "b"), True), (("a", "a"), False)], ids=str
)
def test_quantities_are_named_where_no_label_tells_them(
    labels: tuple[str, str], said: bool, tmp_path: Path
) -> None:
    metrics: tuple[Any, Any] = ("test_error", "top5_error")
    cells = tuple(
        Cell(f"tablet/{m[:3]}", (label, "SAM"), (SAM,), m, folder="tablet/sam")
        for label, m in zip(labels, metrics, strict=True)
    )
    recipe = start(tmp_path, tablet(cells=cells, seeds=1))
    finish(tmp_path, cells[0], SAM, [13.0])
    text = markdown(tmp_path, recipe)
    assert ("| top-5 error (%) | 1.30 |" in text) is not said
    assert ("quantity |" in text) is not said


DIFFERENT: list[dict[str, Any]] = [
    {"model": "resnet-20"},
    {"model_options": {"width": 2}},
    {"data": "cifar100"},
    {"train_examples": 500},
    {"image_size": 16},
    {"validation": 0.1},
    {"noise": 0.2},
]


@pytest.mark.parametrize("changes", DIFFERENT, ids=lambda x: next(iter(x)))
def test_other_data_or_another_network_are_not_set_beside_the_paper(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    recipe = start(tmp_path, tablet(seeds=1))
    finish(tmp_path, recipe.cells[1], SAM, [13.0], changes)
    row = table(tmp_path, recipe)[2]
    assert (row["cell"], row["mean"]) == ("tablet/noise-20/sam", "13.0")
    assert (row["paper"], row["difference"], row["reported"]) == ("", "", "true")
    text = markdown(tmp_path, recipe)
    assert "| 20 % | SAM | 13.00 |  |" in text
    assert "1. Not the paper's data and network: " in text


def test_other_epochs_or_groups_are_set_beside_the_paper(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet(seeds=1))
    changes = {"epochs": 30, "m": 64, "device": "cpu", "lr": 0.2}
    finish(tmp_path, recipe.cells[1], SAM, [13.0], changes)
    row = table(tmp_path, recipe)[2]
    assert row["paper"] == "13.4"
    assert float(row["difference"]) == pytest.approx(-0.4)


def test_an_arm_of_another_network_has_a_row_of_its_own(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet(seeds=1))
    cell = recipe.cells[0]
    finish(tmp_path, cell, SGD, [20.0])
    finish(tmp_path, cell, SGD_2X, [15.0], {"model": "resnet-20"})
    rows = [row for row in table(tmp_path, recipe) if row["cell"] == cell.name]
    assert [(r["arm"], r["runs"], r["paper"], r["reported"]) for r in rows] == [
        ("x1", "1", "20.0", "false"),
        ("x2", "0", "20.0", "false"),
        ("x2", "1", "", "true"),
    ]
    text = markdown(tmp_path, recipe)
    assert "| 20 % | SGD | pending | 20.0±.25 | 1 of 2 |" in text
    assert "| 20 % | SGD (network resnet-20) | 15.00 |  | 1 of 1 |" in text


def test_the_better_arm_of_another_network_waits_for_all(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet(seeds=1))
    finish(tmp_path, recipe.cells[0], SGD, [20.0], {"model": "resnet-20"})
    assert "| 20 % | SGD | pending |  | 1 of 2 |" in markdown(tmp_path, recipe)


def test_fewer_seeds_of_a_later_command_do_not_complete_a_row(tmp_path: Path) -> None:
    recipe = tablet()
    cell = recipe.cells[1]
    for part, seeds in (("tablet", 3), (cell.name, 1), ("tablet/noise-40", 4)):
        sign(tmp_path, Asked(recipe="tablet", part=part, seeds=seeds))
    finish(tmp_path, cell, SAM, [13.0])
    finish(tmp_path, recipe.cells[3], SAM, [13.0, 14.0, 15.0])
    text = markdown(tmp_path, recipe)
    assert "| 20 % | SAM | pending | 13.4±\\<.1 | 1 of 3 |" in text
    assert "| 40 % | SAM | pending | 13.4±\\<.1 | 3 of 4 |" in text
    assert "- 4 seeds instead of 3, in part" in text


def test_as_many_seeds_as_the_only_command_asked_for_complete_a_row(
    tmp_path: Path,
) -> None:
    recipe = tablet()
    cell = recipe.cells[1]
    sign(tmp_path, Asked(recipe="tablet", part=cell.name, seeds=1))
    finish(tmp_path, cell, SAM, [13.0])
    text = markdown(tmp_path, recipe)
    assert "| 20 % | SAM | 13.00 | 13.4±\\<.1 | -0.40 | 1 of 1 |" in text


def test_fewer_seeds_of_the_same_part_do_not_complete_a_row(tmp_path: Path) -> None:
    recipe = tablet()
    for seeds in (3, 1):
        sign(tmp_path, Asked(recipe="tablet", part="tablet", seeds=seeds))
    finish(tmp_path, recipe.cells[1], SAM, [13.0])
    text = markdown(tmp_path, recipe)
    assert "| 20 % | SAM | pending | 13.4±\\<.1 | 1 of 3 |" in text


@pytest.mark.parametrize("loss", ["test_loss", "train_loss"])
def test_runs_that_have_diverged_are_counted_beside_their_error(
    loss: str, tmp_path: Path
) -> None:
    recipe = start(tmp_path, tablet(cells=(one_cell(),)))
    (cell,) = recipe.cells
    finish(tmp_path, cell, SAM, [10.0, 12.0, 80.0])
    path = tmp_path / "tablet/one/x1/seed-2/result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), loss: None}))
    (row,) = _tables.results(collected(tmp_path, recipe)).texts
    assert any(re.search(r"^34\.00 ± [\d.]+ \(1 of 3 diverged\)$", x) for x in row)
    (record,) = records(collected(tmp_path, recipe))
    assert record["diverged"] == 1


def test_a_forecast_that_has_diverged_is_known_by_the_worst_error() -> None:
    assert diverged({"test_mse": WORST})
    assert not diverged({"test_mse": 0.5})
    assert not diverged({"test_error": 100.0, "test_loss": 2.0, "train_loss": 3.0})


@pytest.mark.parametrize("part", ["tablet/", "tablet//"])
def test_a_part_that_was_typed_with_a_slash_counts(part: str, tmp_path: Path) -> None:
    """As older versions stored it."""
    parts = {part: 3, "tablet/one": 1}
    recipe = start(tmp_path, tablet(cells=(one_cell(),)), seeds=1, parts=parts)
    finish(tmp_path, recipe.cells[0], SAM, [13.0, 14.0])
    (record,) = records(collected(tmp_path, recipe))
    assert (record["runs"], record["asked"], record["reported"]) == (2, 3, False)

"""What separates runs from the paper's, and where they were made."""

from __future__ import annotations

import json
from pathlib import Path

from flatmin.experiments.report._scale import (
    commands,
    environments,
    scale,
    summary,
    warning,
)
from tests.experiments.report.folders import (
    SAM,
    SGD,
    SGD_2X,
    START,
    begin,
    collected,
    complete,
    finish,
    start,
    tablet,
    two_numbers,
)


def test_runs_as_the_recipe_has_them_differ_in_nothing(tmp_path: Path) -> None:
    recipe = complete(tmp_path, tablet())
    report = collected(tmp_path, recipe)
    assert scale(report) == []
    assert summary(report) == "At the paper's scale."


def test_the_summary_of_a_smoke_run_is_a_warning(tmp_path: Path) -> None:
    recipe = complete(tmp_path, tablet(), smoke=True, seeds=1)
    report = collected(tmp_path, recipe)
    assert summary(report) == warning(report)
    assert warning(report).startswith("A smoke run, a few steps on made-up data")


def test_without_a_recorded_start_the_command_is_what_was_asked_for(
    tmp_path: Path,
) -> None:
    recipe = start(
        tmp_path, tablet(), part="tablet/noise-20", settings=["data=a b"], smoke=True
    )
    run = begin(tmp_path, recipe.cells[0], SGD, 0)
    (run / "environment.jsonl").write_text("")
    assert commands(collected(tmp_path, recipe)) == [
        "flatmin train tablet/noise-20 --set 'data=a b' --smoke"
    ]


def test_every_field_that_was_changed_is_listed_with_both_values(
    tmp_path: Path,
) -> None:
    recipe = start(tmp_path, tablet(seeds=5, scale="half of the images"), seeds=1)
    small = {"epochs": 30, "train_examples": 500, "augment": (), "device": "cpu"}
    sgd, sam = recipe.cells[:2]
    finish(tmp_path, sgd, SGD, [20.0], small)
    finish(tmp_path, sgd, SGD_2X, [20.0], small)
    finish(tmp_path, sam, SAM, [13.0], {**small, "rho": 0.05})
    report = collected(tmp_path, recipe)
    assert scale(report) == [
        "the recipe itself: half of the images",
        "1 seed instead of 5",
        "500 training images instead of all",
        "augment none instead of flip, crop",
        "30 epochs instead of 200",
        "rho 0.05 instead of 0.1, in 1 of 3 runs",
    ]
    assert summary(report) == (
        "Differs from the paper: the recipe itself: half of the images; 1 seed instead "
        "of 5; 500 training images instead of all; augment none instead of flip, crop; "
        "and 2 more, below."
    )


def test_runs_that_two_cells_report_count_once(tmp_path: Path) -> None:
    recipe = start(tmp_path, two_numbers())
    finish(tmp_path, recipe.cells[0], SAM, [13.0, 13.5, 14.0])
    report = collected(tmp_path, recipe)
    assert [row.reported is not None for row in report.rows] == [True, True]
    assert [place[-1] for place in environments(report)] == ["3"]


def test_machines_are_counted_and_commands_named_once(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet())
    finish(tmp_path, recipe.cells[1], SAM, [13.0, 13.5, 14.0])
    again = {
        **START,
        "gpu": None,
        "command": ["/x/flatmin/__main__.py", "train", "a b"],
    }
    folder = tmp_path / "tablet/noise-20/sam/x1/seed-2"
    with (folder / "environment.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n" + '{"cut sho')
    report = collected(tmp_path, recipe)
    software = "flatmin 0.1.0, torch 2.13.0, Python 3.12.1, Linux-6"
    cores = "x86_64, 16 cores, 8 threads"
    assert environments(report) == [
        (f"NVIDIA H100, {cores}", software, "2", "3"),
        (cores, software, "2", "1"),
    ]
    assert commands(report) == [
        "flatmin train tablet --set epochs=9",
        "flatmin train 'a b'",
    ]

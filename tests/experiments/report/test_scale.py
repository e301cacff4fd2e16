"""What separates runs from the paper's, and where they were made."""

from __future__ import annotations

import json
from pathlib import Path

from flatmin.experiments.recipes._recipe import Cell
from flatmin.experiments.report._scale import commands, environments, scale
from tests.experiments.report.folders import (
    SAM,
    SGD,
    SGD_2X,
    START,
    collected,
    complete,
    finish,
    start,
    tablet,
)


def test_runs_as_the_recipe_has_them_differ_in_nothing(tmp_path: Path) -> None:
    recipe = tablet()
    complete(tmp_path, recipe)
    assert scale(collected(tmp_path, recipe)) == []


def test_every_field_that_was_changed_is_listed_with_both_values(
    tmp_path: Path,
) -> None:
    recipe = tablet(seeds=5, scale="half of the images")
    start(tmp_path, recipe, seeds=1, smoke=True)
    small = {"epochs": 30, "train_examples": 500, "augment": (), "device": "cpu"}
    sgd, sam = recipe.cells[:2]
    finish(tmp_path, sgd, SGD, [20.0], small)
    finish(tmp_path, sgd, SGD_2X, [20.0], small)
    finish(tmp_path, sam, SAM, [13.0], {**small, "rho": 0.05})
    assert scale(collected(tmp_path, recipe)) == [
        "a smoke run: it shows that the recipe runs, and nothing else",
        "the recipe itself: half of the images",
        "seeds: 1 instead of 5",
        "train_examples: 500 instead of unset",
        "augment: none instead of flip, crop",
        "epochs: 30 instead of 200",
        "rho: 0.05 instead of 0.1, in 1 of 3 runs",
    ]


def test_runs_that_two_cells_report_count_once(tmp_path: Path) -> None:
    cells = tuple(
        Cell(
            f"tablet/{metric[:3]}", (metric, "SAM"), (SAM,), metric, folder="tablet/sam"
        )
        for metric in ("test_error", "top5_error")
    )
    recipe = tablet(cells=cells)
    start(tmp_path, recipe)
    finish(tmp_path, cells[0], SAM, [13.0, 13.5, 14.0])
    report = collected(tmp_path, recipe)
    assert [row.reported is not None for row in report.rows] == [True, True]
    assert [place[-1] for place in environments(report)] == ["3"]


def test_machines_are_counted_and_commands_named_once(tmp_path: Path) -> None:
    recipe = tablet()
    start(tmp_path, recipe)
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

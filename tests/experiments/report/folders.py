"""A small recipe, and folders of runs as ``flatmin train`` writes them, by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flatmin.experiments.config import Experiment
from flatmin.experiments.errors import BadInput
from flatmin.experiments.recipes._recipe import Cell, Paper, Recipe
from flatmin.experiments.report import report
from flatmin.experiments.report._numbers import Report, collect
from flatmin.experiments.runs.asked import recipes_of, run_folder

SAM = Experiment(epochs=200, rho=0.1)
SGD = Experiment(epochs=200, method="sgd", rho=0.0)
SGD_2X = SGD.model_copy(update={"length": 2})

START = {
    "started": "2026-01-02T03:04:05+00:00",
    "command": ["/home/somebody/bin/flatmin", "train", "tablet", "--set", "epochs=9"],
    "flatmin": "0.1.0",
    "torch": "2.13.0",
    "python": "3.12.1",
    "platform": "Linux-6",
    "machine": "x86_64",
    "cores": 16,
    "threads": 8,
    "gpu": "NVIDIA H100",
}


def tablet(noises: Sequence[str] = ("20", "40"), **fields: Any) -> Recipe:
    """SGD of two lengths and SAM, under some shares of noise."""
    cells = tuple(
        Cell(
            name=f"tablet/noise-{noise}/{method}",
            labels=(f"{noise} %", method.upper()),
            arms=arms,
            paper=Paper.printed(printed),
        )
        for noise in noises
        for method, arms, printed in (
            ("sgd", (SGD, SGD_2X), "20.0±.25"),
            ("sam", (SAM,), "13.4±<.1"),
        )
    )
    values: dict[str, Any] = {
        "name": "tablet",
        "title": "A small table",
        "headings": ("noise", "method"),
        "cells": cells,
        "seeds": 3,
    }
    return Recipe(**{**values, **fields})


def two_numbers() -> Recipe:
    """Two cells that report the same runs."""
    cells = tuple(
        Cell(
            f"tablet/{metric[:3]}", (metric, "SAM"), (SAM,), metric, folder="tablet/sam"
        )
        for metric in ("test_error", "top5_error")
    )
    return tablet(cells=cells)


def start(root: Path, recipe: Recipe, **fields: Any) -> Recipe:
    """Write ``recipe-NAME.json``; returns the recipe."""
    asked = {"recipe": recipe.name, "part": recipe.name, "settings": []}
    asked |= {"smoke": False, "seeds": recipe.seeds, **fields}
    root.mkdir(parents=True, exist_ok=True)
    (root / f"recipe-{recipe.name}.json").write_text(json.dumps(asked))
    return recipe


def begin(
    root: Path,
    cell: Cell,
    arm: Experiment,
    seed: int,
    epochs: Sequence[dict[str, Any]] = (),
    changes: dict[str, Any] | None = None,
) -> Path:
    """A run that has come as far as these epochs; returns its folder."""
    folder = run_folder(root, cell, arm, seed)
    folder.mkdir(parents=True)
    trained = arm.model_copy(update={"seed": seed, **(changes or {})})
    config = {"experiment": trained.model_dump(mode="json"), "data_sha256": "ab"}
    (folder / "config.json").write_text(json.dumps({**config, "world": 2}))
    (folder / "environment.jsonl").write_text(json.dumps(START) + "\n")
    text = "".join(json.dumps(epoch) + "\n" for epoch in epochs)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def epoch(number: int, error: float, **fields: Any) -> dict[str, Any]:
    """A line of ``metrics.jsonl``."""
    numbers = {"epoch": number, "step": 10 * number, "train_loss": 1.0}
    numbers |= {"test_error": error, "gradient_examples": 100 * number}
    return {**numbers, "seconds": 1.5, **fields}


def finish(
    root: Path,
    cell: Cell,
    arm: Experiment,
    errors: Sequence[float],
    changes: dict[str, Any] | None = None,
    **result: Any,
) -> None:
    """Finished runs with seeds from 0 on and these test errors."""
    for seed, error in enumerate(errors):
        two = [epoch(1, error + 10), epoch(2, error)]
        if arm.horizon is not None:
            two = [{**one, "test_mse": one["test_error"]} for one in two]
            result = {"test_mse": error, **result}
        folder = begin(root, cell, arm, seed, two, changes)
        values = {"test_error": error, "top5_error": error / 10, "train_error": 0.0}
        values |= {"sharpness": 0.1, "lambda_max": 9.0, "steps": 20, "parameters": 7}
        values |= {"gradient_examples": 200 * arm.length, "seconds": 60.0 + seed}
        (folder / "result.json").write_text(json.dumps({**values, **result}))


def complete(root: Path, recipe: Recipe, **fields: Any) -> Recipe:
    """Write all runs of a recipe like `tablet`; returns the recipe."""
    start(root, recipe, **fields)
    for k, cell in enumerate(recipe.cells):
        for arm in cell.arms:
            base = 20.0 + k - 3 * arm.length
            finish(root, cell, arm, [base, base + 1.0, base + 2.0])
    return recipe


def collected(root: Path, recipe: Recipe) -> Report:
    """What the report has to say of the only recipe in a folder."""
    (asked,) = recipes_of(root).values()
    return collect(root, recipe, asked)


def write_report(root: Path, *recipes: Recipe) -> str:
    """The report in its folder; returns what the terminal showed."""
    known = {recipe.name: recipe for recipe in recipes}

    def find(name: str) -> Recipe:
        if name not in known:
            raise BadInput(f"unknown recipe {name!r}.")
        return known[name]

    console = Console(width=80, no_color=True)
    with console.capture() as shown:
        assert report([root], find, console) == [root / "report.html"]
    return shown.get()

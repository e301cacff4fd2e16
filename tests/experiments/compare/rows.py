"""Rows of made-up results."""

from pathlib import Path
from typing import Any

from flatmin.experiments.compare.plan import ARMS, Comparison, Setting
from flatmin.experiments.compare.results import Row
from flatmin.experiments.config import Experiment

SETTING = Setting(name="photos", label="photos")
ARM = {arm.name: arm for arm in ARMS}

#: What the rows are of; their settings lie within its grids.
WHAT = Comparison(
    experiment=Experiment(data="digits", epochs=10),
    settings=(SETTING,),
    lengths=(0.5, 1, 2),
    lrs=(0.25, 0.5, 1, 2),
    rhos=(0.01, 1),
    sam_lengths=(0.5, 1, 2),
)


def row(
    arm: str,
    errors: tuple[float, ...],
    validation: tuple[float, ...],
    *,
    cost: float = 1.0,
    train_error: float = 0.0,
    longest: bool = False,
    averaged: bool = False,
    **fields: Any,
) -> Row:
    results = tuple(
        {
            "test_error": error,
            "train_error": train_error,
            "gradient_examples": round(1000 * cost),
            "seconds": 2.0 * cost,
        }
        for error in errors
    )
    return Row(
        setting=SETTING,
        arm=ARM[arm],
        averaged=averaged,
        longest=longest,
        experiment=Experiment(**{"data": "digits", "epochs": 10, **fields}),
        tries=4,
        ties=0,
        validation=validation,
        results=results,
        folders=tuple(Path(f"{arm}/seed-{k}") for k in range(len(errors))),
        search_examples=round(9000 * cost),
        search_seconds=9.0,
    )

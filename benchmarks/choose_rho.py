"""Which rho the digits recipe should have, by the paper's protocol.

The paper tunes rho on 10 % of the training set, over the grid below. Here, too, the
test set is not looked at; with label noise, the validation labels are as noisy as the
training labels.

    python benchmarks/choose_rho.py > benchmarks/results/choose_rho.md
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from machine import machine

from flatmin.experiments.comparison import Run
from flatmin.experiments.config import ARMS, changed, recipe
from flatmin.experiments.data import load
from flatmin.experiments.datasets import DataSet, Tensors
from flatmin.experiments.finished import percent
from flatmin.experiments.noise import flip_labels
from flatmin.experiments.processes import launched
from flatmin.experiments.run import train
from flatmin.experiments.summary import interval

GRID = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="one epoch, two radii")
    smoke = parser.parse_args().smoke
    settings = ["epochs=1", "seeds=1", "width=4"] if smoke else []
    config = changed(recipe("digits"), settings)
    data = load(config)
    sam = next(arm for arm in ARMS if arm.method == "sam")

    print(machine() + "\n")
    print(f"Validation error %, {config.seeds} seeds, {config.epochs} epochs.\n")
    columns = [f"{percent(noise)} label noise" for noise in config.noise]
    print("| rho | " + " | ".join(columns) + " |\n" + "| --- " * 3 + "|")
    for rho in GRID[-2:] if smoke else GRID:
        cells = []
        for noise in config.noise:
            errors = tuple(
                validation_error(
                    Run(config.model_copy(update={"rho": rho}), sam, 0.0, seed),
                    held_out(data, noise, seed),
                )
                for seed in range(config.seeds)
            )
            spread = interval(errors)
            mean = sum(errors) / len(errors)
            cells.append(f"{mean:.1f}" + ("" if spread is None else f" ± {spread:.1f}"))
        print(f"| {rho:g} | " + " | ".join(cells) + " |", flush=True)


def held_out(data: DataSet, noise: float, seed: int) -> DataSet:
    """The training set alone, its last tenth for validation, its labels noisy."""
    assert isinstance(data.train, Tensors)
    y = flip_labels(data.train.y, noise, len(data.classes), seed)
    x, n = data.train.x, len(y) * 9 // 10
    return replace(data, train=Tensors(x[:n], y[:n]), test=Tensors(x[n:], y[n:]))


def validation_error(run: Run, data: DataSet) -> float:
    with tempfile.TemporaryDirectory() as folder:
        fabric = launched(run.experiment)
        return train(fabric, run.experiment, data, Path(folder))["test_error"]


if __name__ == "__main__":
    main()

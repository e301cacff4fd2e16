"""SAMformer on ETTh1 with and without SAM: what is chosen by validation, then 5 seeds.

For each horizon, rho is chosen on the validation part with a seed that is not tested.
Adam's learning rate is chosen in the same way, on the first horizon. Adam is trained
for as many epochs as SAM, and on the first horizon also for twice as many, which take
as many gradients as SAM. Finished runs are not trained again; every run adds its line
to the CSV file.

    python benchmarks/forecast.py --data data --out runs/forecast
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from machine import machine
from rich.console import Console

from flatmin.experiments.config import Experiment
from flatmin.experiments.intervals import interval, mean, paired
from flatmin.experiments.jobs import Job, Request, train_job
from flatmin.experiments.launch import launched
from flatmin.experiments.progress import bars
from flatmin.experiments.recipes import recipe, smoke
from flatmin.experiments.recipes.forecast import HORIZONS, RHOS
from flatmin.experiments.runs.files import write
from flatmin.experiments.table import Column, Table

LRS = (1e-4, 3e-4, 1e-3)

#: Seeds of the runs to choose from, and of those that are tested.
CHOICE, SEEDS = 0, (1, 2, 3, 4, 5)

#: A run's settings and results; its keys are the columns of the CSV file.
Record = dict[str, Any]


@dataclass
class Study:
    """The runs of a study, and their records.

    Attributes:
        root: folder of the runs.
        data: where the series is.
        small: whether runs are two steps on a made-up series.
        records: of all runs so far.
    """

    root: Path
    data: Path
    small: bool
    records: list[Record]

    def arm(self, horizon: int, method: str, **fields: Any) -> Experiment:
        """Return the recipe's experiment, with some fields changed."""
        part = recipe(f"forecast/etth1/{horizon}/{method}")
        arm = (smoke(part) if self.small else part).cells[0].arms[0]
        values = {**arm.model_dump(), "evaluate_every": 10, **fields}
        return Experiment.model_validate(values)

    def run(self, stage: str, name: str, experiment: Experiment) -> float:
        """Train, unless that was done before; return the squared error."""
        one = experiment
        folder = self.root / stage / str(one.horizon) / name / f"seed-{one.seed}"
        request = Request("forecast", small=self.small, root=self.root, data=self.data)
        with bars(Console(stderr=True)) as progress:
            job = Job(one, folder)
            result = train_job(launched(one), job, request, progress)
        assert result is not None, f"another process trains {folder}"
        self.records.append(
            {
                "stage": stage,
                "horizon": one.horizon,
                "method": name if stage == "test" else one.method,
                "lr": one.lr,
                "rho": one.rho,
                "epochs": one.epochs * one.length,
                "seed": one.seed,
                "mse": result["test_mse"],
                "mae": result["test_mae"],
                "train_mse": result["train_mse"],
                "gradient_examples": result["gradient_examples"],
                "seconds": round(result["seconds"], 1),
            }
        )
        write(self.root / "runs.csv", Table.of(self.records).csv())
        return result["test_mse"]

    def choose(
        self, horizon: int, method: str, field: str, values: Sequence[float]
    ) -> float:
        """Return the value with the least error on the validation part."""
        found = {
            value: self.run(
                "choose",
                f"{field}-{value:g}",
                self.arm(
                    horizon, method, seed=CHOICE, validation=0.1, **{field: value}
                ),
            )
            for value in values
        }
        return min(found, key=lambda value: found[value])

    def test(self, horizon: int, arms: dict[str, Experiment]) -> None:
        """Train every arm with every seed, seed by seed."""
        for seed in SEEDS:
            for name, arm in arms.items():
                self.run("test", name, arm.model_copy(update={"seed": seed}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("runs/forecast"))
    parser.add_argument("--horizons", type=int, nargs="+", default=list(HORIZONS))
    parser.add_argument("--smoke", action="store_true", help="two steps of each")
    given = parser.parse_args()
    print(machine() + "\n", flush=True)
    with TemporaryDirectory() as thrown_away:
        root = Path(thrown_away) if given.smoke else given.out
        study = Study(root, given.data, given.smoke, [])
        train(study, given.horizons)
    print(table(study.records).markdown())


def train(study: Study, horizons: Sequence[int]) -> None:
    """Choose, then test, one horizon after the other."""
    first = horizons[0]
    lr = study.choose(first, "adam", "lr", LRS)
    for horizon in horizons:
        rho = study.choose(horizon, "sam", "rho", RHOS)
        arms = {"adam": study.arm(horizon, "adam", lr=lr)}
        if horizon == first:
            arms["adam-2x"] = study.arm(horizon, "adam", lr=lr, length=2)
        arms["sam"] = study.arm(horizon, "sam", rho=rho)
        study.test(horizon, arms)


def table(records: list[Record]) -> Table:
    """Make a table of the test runs: means, intervals, SAM's paired differences."""
    names = ("horizon", "method", "lr", "rho", "epochs", "test MSE", "test MAE")
    more = ("SAM - this, MSE", "gradient examples", "seconds")
    columns = tuple(Column(name, left=name == "method") for name in (*names, *more))
    return Table("", columns, tuple(_rows(records)))


def _rows(records: list[Record]) -> Iterator[tuple[Any, ...]]:
    tested = [one for one in records if one["stage"] == "test"]
    for horizon in dict.fromkeys(one["horizon"] for one in tested):
        here = [one for one in tested if one["horizon"] == horizon]
        sam = {one["seed"]: one["mse"] for one in here if one["method"] == "sam"}
        for method in dict.fromkeys(one["method"] for one in here):
            arm = [one for one in here if one["method"] == method]
            pairs = [(sam[x["seed"]], x["mse"]) for x in arm if x["seed"] in sam]
            yield (
                *(
                    arm[0][name]
                    for name in ("horizon", "method", "lr", "rho", "epochs")
                ),
                *(_around([one[name] for one in arm]) for name in ("mse", "mae")),
                _difference(pairs) if method != "sam" else "",
                f"{arm[0]['gradient_examples']:,}",
                f"{mean([one['seconds'] for one in arm]):.0f}",
            )


def _around(values: list[float]) -> str:
    half = interval(values)
    return f"{mean(values):.4f}" + ("" if half is None else f" ± {half:.4f}")


def _difference(pairs: list[tuple[float, float]]) -> str:
    if not pairs:
        return ""
    found = paired(*map(list, zip(*pairs, strict=True)))
    half = "" if found.half is None else f" ± {found.half:.4f}"
    return f"{found.mean:+.4f}{half}"


if __name__ == "__main__":
    main()

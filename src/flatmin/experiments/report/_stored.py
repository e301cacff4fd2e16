"""What the folders of runs hold, read and checked; nothing here writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from flatmin.experiments.errors import BadInput
from flatmin.experiments.experiment import Experiment
from flatmin.experiments.store import read_json


class Started(BaseModel):
    """``recipe-NAME.json``: what ``flatmin train`` was asked for.

    Attributes:
        recipe: its name.
        part: the cells that were asked for.
        settings: ``field=value``, as given.
        smoke: whether the recipe was made as small as possible.
        seeds: runs per arm.
    """

    recipe: str
    part: str | None = None
    settings: tuple[str, ...] = ()
    smoke: bool = False
    seeds: int = Field(ge=1)


class Config(BaseModel):
    """``config.json``: what decided the numbers of a run."""

    experiment: Experiment
    world: int = 1


class Epoch(BaseModel):
    """What curves and spectra need of a line of ``metrics.jsonl``."""

    epoch: int
    test_error: float
    gradient_examples: int
    lambda_max: float | None = None
    lambda_ratio: float | None = None


class Result(BaseModel):
    """What tables need of ``result.json``; None where it was not measured."""

    test_error: float
    top5_error: float | None = None
    error_sharpness: float | None = None
    lambda_max: float | None = None
    lambda_ratio: float | None = None
    gradient_examples: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run, finished or not.

    Attributes:
        folder: where it is now.
        config: its experiment and number of processes.
        starts: one record per start: versions, machine, command.
        epochs: those that were tested.
        result: None while the run is unfinished.
    """

    folder: Path
    config: Config
    starts: tuple[dict[str, Any], ...]
    epochs: tuple[Epoch, ...]
    result: Result | None

    @property
    def smoke(self) -> bool:
        """Whether a command that started it says so."""
        return any("--smoke" in (one.get("command") or ()) for one in self.starts)


Model = TypeVar("Model", bound=BaseModel)


def started(folder: Path) -> dict[Path, Started]:
    """The recipes that were started in a folder, by their file, in order of names.

    Raises:
        BadInput: there is none, or its file is damaged.
    """
    found = {path: _read(path, Started) for path in folder.glob("recipe-*.json")}
    recipes = {path: one for path, one in sorted(found.items()) if one is not None}
    if not recipes:
        raise BadInput(
            f"{folder} has no recipe-*.json, so it is no folder of runs. Give the "
            "folder that flatmin train writes to (its --out)."
        )
    return recipes


def runs_of(arm: Path) -> tuple[StoredRun, ...]:
    """The runs in the folder of an arm, in order of their seeds.

    Raises:
        BadInput: a file is damaged, or runs differ in more than the seed.
    """
    seeds = [f for f in arm.glob("seed-*") if f.name.removeprefix("seed-").isdecimal()]
    seeds.sort(key=lambda folder: int(folder.name.removeprefix("seed-")))
    runs = tuple(run for run in map(_run, seeds) if run is not None)
    for run in runs[1:]:
        fields = differences(runs[0].config.experiment, run.config.experiment)
        if fields:
            raise BadInput(
                f"{runs[0].folder} and {run.folder} are runs of two experiments "
                f"(different: {', '.join(fields)}). Keep them in two folders of runs."
            )
    return runs


def differences(one: Experiment, other: Experiment) -> list[str]:
    """The fields in which two experiments differ, but for the seed and the device."""
    fields = (name for name in Experiment.model_fields if name not in _ELSEWHERE)
    return [name for name in fields if getattr(one, name) != getattr(other, name)]


#: Seeds are told by folders, devices by the environment.
_ELSEWHERE = ("seed", "device")


def _run(folder: Path) -> StoredRun | None:
    config = _read(folder / "config.json", Config)
    result = _read(folder / "result.json", Result)
    if config is None:
        if result is not None:
            raise BadInput(f"{folder / 'config.json'} is missing.")
        return None
    metrics = folder / "metrics.jsonl"
    epochs = tuple(_valid(line, metrics, Epoch) for line in _lines(metrics))
    starts = tuple(_lines(folder / "environment.jsonl"))
    return StoredRun(folder, config, starts, epochs, result)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; one that was cut short is none."""
    records: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict):
            raise BadInput(f"{path} is damaged: {line[:40]!r} is no record.")
        records.append(record)
    return records


def _read(path: Path, kind: type[Model]) -> Model | None:
    value = read_json(path)
    return None if value is None else _valid(value, path, kind)


def _valid(value: Any, path: Path, kind: type[Model]) -> Model:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise BadInput(
            f"{path} is damaged ({where}: {first['msg'].lower()})."
        ) from None

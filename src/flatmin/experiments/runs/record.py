"""The folder of a run: the only code that knows its files.

FOLDER/
config.json          the experiment, the fingerprint of its data, how many processes
environment.jsonl    one line per start: versions, machine, command, commit
metrics.jsonl        one line per test
labels.safetensors   the labels that are trained
tensorboard/         the metrics again
checkpoint.json, checkpoint/       while it is trained, see `runs.checkpoint`
predictions.safetensors, weights.safetensors, result.json   when it is finished

Even if the program is killed, files are whole or absent; only in files with lines can
the last line be cut short.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import DataSet
from flatmin.experiments.errors import BadInput, expanded
from flatmin.experiments.models import SCRATCH
from flatmin.experiments.runs import environment
from flatmin.experiments.runs.files import (
    LOCK,
    check,
    differences,
    read_json,
    read_lines,
    sha256,
    walked,
    write,
    write_json,
)
from flatmin.experiments.runs.images import Inputs, Window, described
from flatmin.experiments.runs.network import packed, restored, tensors
from flatmin.experiments.runs.stored import Config, Epoch, Result, Start

#: What messages advise about a damaged file that only training can make again.
_TRAIN = "Remove the run's folder and train again."

#: The file that only folders of ``flatmin export`` have, not those of runs.
EXPORTED = "model.safetensors"

#: Files that may be left by a start that was killed at once.
_OWN = {LOCK, ".config.json.part"}


class Run:
    """One training run's folder.

    Args:
        folder: where it is, or will be.

    Example:
        >>> from pathlib import Path
        >>> from flatmin.experiments.runs.record import Run
        >>> run = Run(Path("runs/figure1/sam/x1/seed-0"))
        >>> run.metrics()
        []
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._board: Any = None

    @property
    def begun(self) -> bool:
        """Whether there is a ``config.json``."""
        return self._path("config.json").is_file()

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return self._path("result.json").is_file()

    @cached_property
    def config(self) -> Config:
        """The settings that decide the run's numbers.

        Raises:
            BadInput: the file is missing or damaged, or an older ``flatmin compare``
                wrote it.
        """
        path = self._path("config.json")
        stored = read_json(path, _TRAIN)
        if stored is None:
            raise BadInput(f"{path} is missing. {_TRAIN}")
        if isinstance(stored, dict) and "config" in stored:
            raise BadInput(
                f"{self.folder} was written by an older flatmin compare; run it again."
            )
        return check(Config, stored, path, _TRAIN)

    @property
    def experiment(self) -> Experiment:
        """What is trained; raises as `config`."""
        return self.config.experiment

    @property
    def images(self) -> Inputs:
        """How its images, or windows of a series, become the network's input.

        Raises:
            BadInput: as `config`, or an older flatmin trained the run.
        """
        if self.config.images is None:
            raise BadInput(
                f"{self._path('config.json')} does not describe the images: an older "
                f"flatmin trained the run. {_TRAIN}"
            )
        return self.config.images

    def starts(self) -> list[dict[str, Any]]:
        """Read the record of each start: versions, machine, command, commit.

        Raises:
            BadInput: a line is damaged.
        """
        return read_lines(self._path("environment.jsonl"), Start)

    def metrics(self) -> list[dict[str, Any]]:
        """Read the tests so far, with their epoch, step and error.

        Raises:
            BadInput: a line is damaged.
        """
        return read_lines(self._path("metrics.jsonl"), Epoch)

    def result(self) -> dict[str, Any] | None:
        """Read the finished run's numbers; None while it is unfinished.

        Raises:
            BadInput: the file is damaged.
        """
        path = self._path("result.json")
        stored = read_json(path)
        if stored is None:
            return None
        check(Result, stored, path, "Remove it and start again.")
        return stored

    def check(self) -> None:
        """Read every file but weights and labels.

        Raises:
            BadInput: one is missing or damaged.
        """
        _ = self.config
        self.starts()
        self.metrics()
        self.result()

    def labels(self) -> Tensor:
        """Read the labels that were trained ``[n]``, or a series' windows, int64.

        Raises:
            BadInput: the file is missing or damaged, or a label is no class.
        """
        path = self._path("labels.safetensors")
        y = tensors(path, _TRAIN).get("y")
        if y is None or y.dim() != 1 or y.dtype != torch.int64:
            raise BadInput(f"{path} is damaged: it holds no labels. {_TRAIN}")
        if isinstance(self.images, Window):
            return y
        classes = len(self.images.classes)
        if bool(((y < 0) | (y >= classes)).any()):
            raise BadInput(
                f"{path} is damaged: a label is none of {classes} classes. {_TRAIN}"
            )
        return y

    def weights(self) -> dict[str, Tensor]:
        """Read the trained weights.

        Raises:
            BadInput: the file is missing or damaged.
        """
        return tensors(self._path("weights.safetensors"), _TRAIN)

    def model(self) -> nn.Module:
        """Build the network with the trained weights, in evaluation mode, on the CPU.

        Raises:
            BadInput: as `config` and `weights`, or the weights are another network's.
        """
        one, path = self.experiment, self._path("weights.safetensors")
        return restored(one.model, one.model_options, self.images, path, _TRAIN)

    def claim(self, experiment: Experiment, data: DataSet, world: int = 1) -> None:
        """Store an experiment in the folder, or check that the folder is its own.

        Args:
            experiment: what will be trained.
            data: on which it is trained.
            world: by how many processes.

        Raises:
            BadInput: the folder holds another experiment, or something else; its
                configuration is damaged, or of another version of flatmin.
        """
        config = Config(
            experiment=experiment,
            data_sha256=data.digest(),
            weights_sha256=weights_sha256(experiment),
            world=world,
            images=described(data, experiment),
        )
        if not self.begun:
            self._check_empty()
            write_json(self._path("config.json"), config.model_dump(mode="json"))
        elif different := differences(self.config, self._as_far_as_stored(config)):
            raise BadInput(
                f"{self.folder} holds another experiment (different: "
                f"{', '.join(different)}). Choose another folder with --out."
            )
        starts = [*self.starts(), environment.start()]
        write(self._path("environment.jsonl"), _lines(starts))

    def _as_far_as_stored(self, config: Config) -> Config:
        """Leave out the images where an older version did not describe its own."""
        if self.config.images is not None:
            return config
        return config.model_copy(update={"images": None})

    def _check_empty(self) -> None:
        there = self.folder.iterdir() if self.folder.exists() else ()
        if any(path.name not in _OWN for path in there):
            raise BadInput(
                f"{self.folder} is not empty and no run folder. Choose another with "
                "--out."
            )

    def append(self, epoch: dict[str, Any]) -> None:
        """Add a test to the metrics, and to TensorBoard's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._path("metrics.jsonl").open("a") as file:
            file.write(_lines([epoch]))
        if self._board is None:
            # Imported late: it takes a second, and only the first process writes.
            from torch.utils.tensorboard.writer import SummaryWriter

            # purge_step hides what an interrupted start wrote from this step on.
            folder = self._path("tensorboard")
            self._board = SummaryWriter(folder, purge_step=epoch["step"])
        for name, value in epoch.items():
            if name != "step" and value is not None:
                self._board.add_scalar(name, value, epoch["step"])
        self._board.flush()

    def keep(self, epochs: list[dict[str, Any]]) -> None:
        """Remove all tests but these; those after a checkpoint will be made again."""
        write(self._path("metrics.jsonl"), _lines(epochs))

    def keep_labels(self, y: Tensor) -> None:
        """Store the labels that are trained."""
        write(self._path("labels.safetensors"), packed({"y": y}))

    def keep_predictions(self, predicted: Mapping[str, Tensor]) -> None:
        """Store the classes that were predicted for the test images, if any were.

        Args:
            predicted: under ``"test"``, ``[n]``, int64; with an average of the weights
                also under ``"last"``, those of the last weights.
        """
        if predicted:
            write(self._path("predictions.safetensors"), packed(predicted))

    def predictions(self) -> dict[str, Tensor]:
        """Read what `keep_predictions` stored.

        Raises:
            BadInput: the file is missing or damaged.
        """
        return tensors(self._path("predictions.safetensors"), _TRAIN)

    def finish(self, weights: Mapping[str, Tensor], result: dict[str, Any]) -> None:
        """Store the trained weights and the result, with which the run is finished."""
        write(self._path("weights.safetensors"), packed(weights))
        write_json(self._path("result.json"), result)

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _path(self, name: str) -> Path:
        return self.folder / name


def weights_sha256(experiment: Experiment) -> str | None:
    """Return the fingerprint of the file that training begins with; None without one.

    Raises:
        BadInput: the file cannot be read.
    """
    if experiment.weights in (None, SCRATCH):
        return None
    return sha256(expanded(experiment.weights))


def _lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def runs_below(folder: Path) -> list[Run]:
    """Find the runs in a folder, at any depth, finished or not.

    Raises:
        BadInput: a folder cannot be read, and could hold a run.
    """
    named = ((here, {path.name for path in paths}) for here, paths in walked(folder))
    found = [here for here, names in named if names & {"config.json", "result.json"}]
    runs = [Run(here) for here in found if not (here / EXPORTED).is_file()]
    return [run for run in runs if run.begun or not _inside_a_run(run)]


def _inside_a_run(run: Run) -> bool:
    """Whether a run is a part of another, such as Bootstrap's teacher."""
    return any(Run(folder).begun for folder in list(run.folder.parents)[:3])

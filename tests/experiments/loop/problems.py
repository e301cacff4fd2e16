"""Small data sets and experiments, and a run in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin.experiments.batches import Batches, Share
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import DataSet, Tensors
from flatmin.experiments.launch import launched
from flatmin.experiments.models import build
from flatmin.experiments.progress import Watcher
from flatmin.experiments.runs.record import Run
from flatmin.experiments.train import Training, finished
from tests.experiments.helpers import Program

CPU = torch.device("cpu")
CLASSES = 6


def pictures(n: int = 26, test: int = 13, side: int = 8) -> DataSet:
    """Random images, with labels that can be learned from them."""
    draw = torch.Generator().manual_seed(5)

    def split(count: int) -> Tensors:
        y = torch.arange(count) % CLASSES
        x = torch.randint(0, 120, (count, 3, side, side), generator=draw)
        x += 20 * y[:, None, None, None]
        return Tensors(x.to(torch.uint8), y)

    names = tuple(map(str, range(CLASSES)))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    return DataSet(
        "small", split(n), split(test), names, mean, std, "cifar10", "made up"
    )


def small(**fields: Any) -> Experiment:
    """Two epochs of three steps, without augmentation and measurements."""
    values: dict[str, Any] = {
        "data": "small",
        "model": "wrn-10-1",
        "augment": (),
        "batch_size": 8,
        "epochs": 2,
        "device": "cpu",
        "flatness_rho": None,
    }
    return Experiment(**{**values, **fields})


def batches_of(
    experiment: Experiment,
    data: DataSet,
    y: Tensor | None = None,
    share: Share | None = None,
) -> Batches:
    """What a process reads."""
    labels = data.train.y if y is None else y
    return Batches(data, labels, experiment, CPU, share or Share())


def network(experiment: Experiment) -> nn.Module:
    """The network with its initial weights."""
    torch.manual_seed(experiment.seed)
    return build(experiment.model, CLASSES, 3, **experiment.model_options)


@dataclass
class Told(Watcher):
    """Passes on what it is told."""

    tick: Callable[[int, int], None] = lambda step, steps: None
    watch: Callable[[dict[str, Any]], None] = lambda line: None

    def step(self, step: int, steps: int) -> None:
        self.tick(step, steps)

    def line(self, line: dict[str, Any]) -> None:
        self.watch(line)


def trained(
    experiment: Experiment, folder: Path, data: DataSet | None = None, **watchers: Any
) -> Run:
    """The folder of a finished run."""
    data = pictures() if data is None else data
    fabric = launched(experiment)
    if finished(fabric, folder) is None:
        Training(fabric, experiment, data).run(folder, Told(**watchers))
    return Run(folder)


def left_and_resumed(
    experiment: Experiment, folder: Path, data: DataSet, at: int
) -> Run:
    """The folder of a run that an exception ended in step ``at``, and then went on."""

    class Stopped(Exception):
        pass

    def stop(step: int, steps: int) -> None:
        if step == at:
            raise Stopped

    training = Training(launched(experiment), experiment, data)
    with pytest.raises(Stopped):
        training.run(folder, Told(tick=stop))
    assert (folder / "checkpoint.json").is_file()
    return trained(experiment, folder, data)


def refused(program: Program, cell: str, settings: list[str], out: Path) -> str:
    """The one line that refuses settings before there is a folder."""
    given = [word for one in settings for word in ("--set", one)]
    code, said, err = program("train", cell, "--smoke", "--out", out, *given)
    assert (code, err.count("\n")) == (2, 1), said
    assert not list(out.iterdir())
    return err


def labelled(data: DataSet, y: Tensor) -> DataSet:
    """The same images with other training labels."""
    assert isinstance(data.train, Tensors)
    return replace(data, train=Tensors(data.train.x, y))


def standard(x: Tensor, data: DataSet) -> Tensor:
    """Images as a network without augmentation gets them."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.mean, data.std))
    return (x.float() / 255 - mean) / std


def without_time(record: dict[str, Any]) -> dict[str, Any]:
    """What two runs must have in common."""
    return {name: value for name, value in record.items() if name != "seconds"}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether weights are equal, bit for bit."""
    return one.keys() == other.keys() and all(
        torch.equal(w, other[name]) for name, w in one.items()
    )

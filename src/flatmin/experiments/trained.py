"""A run of ``flatmin train`` or ``flatmin compare``, opened once it is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from flatmin.experiments.datasets import SETS, DataSet, Files, images_of
from flatmin.experiments.datasets.tiny import TINY
from flatmin.experiments.errors import BadInput
from flatmin.experiments.experiment import Experiment
from flatmin.experiments.feed import Feed, Share
from flatmin.experiments.finished import (
    Batch,
    Finished,
    device_like,
    percent,
    restored,
)
from flatmin.experiments.models import build
from flatmin.experiments.store import RunStore

#: `flatmin.experiments.datasets.load`, which may remember what it has read.
Load = Callable[[str, Path, int | None], DataSet]

#: The paper's, where a run has measured no sharpness of its own.
_RHO = 0.05

_LABELS = {"sgd": "SGD", "sam": "SAM"}


class _Config(BaseModel):
    """What is needed of ``config.json``."""

    experiment: Experiment
    data_sha256: str


def finished(folder: Path, stored: Any, data: Path, load: Load) -> list[Finished]:
    """The run in a folder; none if it is not finished.

    Args:
        folder: the run's own.
        stored: what is in its ``config.json``.
        data: where the data sets are. Those that ``--smoke`` has made up are found
            beside the run.
        load: reads a data set.

    Raises:
        BadInput: ``stored`` is damaged, or the images are not there, have changed, or
            are read from files.
    """
    try:
        config = _Config.model_validate(stored)
    except ValidationError:
        raise BadInput(f"{folder / 'config.json'} is damaged.") from None
    if RunStore(folder).result() is None:
        return []
    experiment = config.experiment
    root = _root(folder, config, data, load)
    return [opened(folder, experiment, partial(images_of, experiment, root, load))]


def opened(
    folder: Path, experiment: Experiment, images: Callable[[], DataSet]
) -> Finished:
    """A finished run.

    Args:
        folder: the run's own, resolved.
        experiment: what was trained.
        images: gives what it was trained on.
    """
    return Finished(
        folder=folder,
        title=_title(experiment),
        method=_method(experiment),
        noise=experiment.noise,
        seed=experiment.seed,
        classes=len(images().classes),
        rho=experiment.flatness_rho or _RHO,
        read=_Reader(folder, experiment, images),
    )


def _title(experiment: Experiment) -> str:
    name = experiment.data
    words = [_method(experiment), SETS[name].title if name in SETS else Path(name).name]
    if experiment.noise:
        words.append(f"{percent(experiment.noise)} label noise")
    return ", ".join(words)


def _method(experiment: Experiment) -> str:
    words = _LABELS.get(experiment.method, experiment.method)
    if experiment.length > 1:
        words += f" {experiment.length}x epochs"
    return words if experiment.method == "sgd" else f"{words}, rho {experiment.rho:g}"


def _root(folder: Path, config: _Config, data: Path, load: Load) -> Path:
    """Where the images are that a run was trained on."""
    name = config.experiment.data
    made_up = (parent / "tiny" for parent in folder.parents)
    for root in (*(r for r in made_up if (r / name / TINY).is_file()), data):
        try:
            images = images_of(config.experiment, root, load)
        except BadInput:
            if root is data:
                raise
            continue  # Of another run: too few for this one.
        if isinstance(images.train, Files):
            raise BadInput(
                f"{folder} was trained on {images.train.y.numel():,} images of {name} "
                "that are read from files. Sharpness and landscapes read all of them "
                "many times and need them in memory."
            )
        if images.digest() == config.data_sha256:
            return root
    raise BadInput(
        f"the images of {name} are not those that {folder} was trained on. Say with "
        "--data where the data sets are that it had."
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Loads a run's model and data."""

    folder: Path
    experiment: Experiment
    images: Callable[[], DataSet]

    def __call__(self, size: int) -> tuple[nn.Module, _Batches]:
        experiment, images = self.experiment, self.images()
        device = device_like(experiment.device)
        kind = torch.float64 if experiment.precision == "64-true" else torch.float32
        options = dict(experiment.model_options)
        if "pretrained" in options:
            options["pretrained"] = False  # The run's own weights take their place.
        network = build(
            experiment.model, len(images.classes), len(images.mean), **options
        ).to(device, kind)
        y = self._labels(len(images.train.y))
        feed = Feed(images, y, experiment, device, Share())
        return restored(network, self.folder), _Batches(feed, size, kind)

    def _labels(self, n: int) -> Tensor:
        path = self.folder / "labels.safetensors"
        try:
            y = load_file(path)["y"]
        except (OSError, SafetensorError, KeyError) as error:
            raise BadInput(
                f"{path} cannot be read ({error}). Remove its folder and train again."
            ) from None
        if y.shape != (n,) or y.dtype != torch.int64:
            raise BadInput(
                f"{path} is damaged: it has no label for each of {n} images."
            )
        return y


@dataclass(frozen=True, slots=True)
class _Batches:
    """A feed's training images in their order, as often as they are read.

    Only the images as bytes stay in memory: standardised, they take four times as
    much, and more where the network wants them larger.
    """

    feed: Feed
    size: int
    kind: torch.dtype

    def __iter__(self) -> Iterator[Batch]:
        rest: list[Batch] = []
        for batch in self.feed.alone():
            x, y = (torch.cat(parts) for parts in zip(*rest, batch, strict=True))
            x, whole = x.to(self.kind), len(y) // self.size * self.size
            pieces = x[:whole].split(self.size), y[:whole].split(self.size)
            yield from zip(*pieces, strict=True) if whole else ()
            rest = [(x[whole:], y[whole:])]
        yield from ((x, y) for x, y in rest if len(y))

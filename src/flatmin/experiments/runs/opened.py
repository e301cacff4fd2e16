"""Open the finished runs in folders of the command line, for their training loss."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from flatmin.diagnostics import Objective
from flatmin.experiments.batches import Batches, Share, as_input
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import (
    SETS,
    DataSet,
    Files,
    images_of,
    load,
    made_up_images,
)
from flatmin.experiments.errors import BadInput
from flatmin.experiments.runs.asked import has_runs
from flatmin.experiments.runs.record import Run, runs_below
from flatmin.experiments.tasks import task_of

if TYPE_CHECKING:
    from flatmin.experiments.runs.elsewhere import Weights

#: Images, standardised and not augmented, and the labels that were trained.
Batch = tuple[Tensor, Tensor]

#: `flatmin.experiments.datasets.load`, which may remember what it has read.
Load = Callable[[str, Path, int | None], DataSet]

#: The paper's radius, where a run has measured no sharpness of its own.
_RHO = 0.05

_LABELS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "sam": "SAM"}


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run whose loss can be measured.

    Attributes:
        run: its folder, or a file of weights.
        data: reads the data it was trained on. It is called only when needed, so that
            many runs can be open at once.
    """

    run: Run | Weights
    data: Callable[[], DataSet]

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.run.folder

    @property
    def experiment(self) -> Experiment:
        """The experiment that was trained."""
        return self.run.experiment

    @property
    def method(self) -> str:
        """The method of training in a few words: ``SAM 2x epochs, rho 0.05``."""
        one = self.experiment
        name = one.optimizer if one.method == "sgd" else one.method
        words = _LABELS.get(name, name)
        if one.length > 1:
            words += f" {one.length}x epochs"
        return words if one.method == "sgd" else f"{words}, rho {one.rho:g}"

    @property
    def title(self) -> str:
        """The model's name in pictures: ``SAM, rho 0.05, CIFAR-10``."""
        name = self.experiment.data
        images = SETS[name].title if name in SETS else Path(name).name
        words = [self.method, images]
        if self.experiment.horizon is not None:
            words.append(f"{self.experiment.horizon} steps ahead")
        if self.experiment.noise:
            words.append(f"{percent(self.experiment.noise)} label noise")
        return ", ".join(words)

    @property
    def words(self) -> dict[str, str | int | float]:
        """What tables show of the run."""
        one = self.experiment
        return {"noise": one.noise, "method": self.method, "seed": one.seed}

    @property
    def rho(self) -> float:
        """The radius at which its sharpness is measured."""
        return self.experiment.flatness_rho or _RHO

    def check(self) -> None:
        """Read weights and labels once, before anything is written.

        Raises:
            BadInput: one is missing or damaged, or of another network or other images.
        """
        self.run.model()
        self._labels(self.data())

    def batches(self, size: int) -> Recut:
        """Return all the training data, in order.

        Args:
            size: examples per batch.

        Raises:
            BadInput: labels are missing, damaged, or of other images.
        """
        experiment, images = self.experiment, self.data()
        device = device_like(experiment.device)
        y = self._labels(images)
        batches = Batches(images, y, experiment, device, Share())
        double = experiment.precision == "64-true"
        return Recut(batches, size, torch.float64 if double else torch.float32)

    def _labels(self, images: DataSet) -> Tensor:
        y, n = self.run.labels(), len(images.train.y)
        if len(y) != n:
            raise BadInput(
                f"{self.folder} has {len(y)} labels, but it was trained on {n} "
                f"{task_of(self.experiment).examples}. "
                "Remove the run's folder and train again."
            )
        return y

    def objective(self, size: int) -> Objective:
        """Return the loss on the training set, with the labels that were trained.

        BatchNorm uses its running statistics, so that the loss is a function of the
        weights alone.

        Args:
            size: examples per batch.

        Raises:
            BadInput: weights or labels are missing or damaged, or the loss is not
                finite.
        """
        model = self.run.model().to(device_like(self.experiment.device))
        try:
            criterion = task_of(self.experiment).criterion
            return Objective(model, criterion, self.batches(size))
        except BadInput:
            raise
        except (ValueError, RuntimeError) as error:
            raise BadInput(f"{self.folder} cannot be measured: {error}") from None


@dataclass(frozen=True, slots=True)
class Recut:
    """The training images in order, in batches of ``size``; can be read repeatedly.

    Only the uint8 images stay in memory: standardised, they would take four times as
    much, and more where they are enlarged for the network.
    """

    batches: Batches
    size: int
    kind: torch.dtype

    def __iter__(self) -> Iterator[Batch]:
        rest: list[Batch] = []
        for batch in self.batches.alone():
            xs, ys = zip(*rest, batch, strict=True)
            x, y = as_input(_joined(xs), self.kind), torch.cat(ys)
            whole = len(y) // self.size * self.size
            y = y.to(self.kind) if y.is_floating_point() else y
            pieces = x[:whole].split(self.size), y[:whole].split(self.size)
            yield from zip(*pieces, strict=True) if whole else ()
            rest = [(x[whole:], y[whole:])]
        yield from ((x, y) for x, y in rest if len(y))


def _joined(xs: tuple[Tensor, ...]) -> Tensor:
    """Join batches; the sentences of one may be longer than those of another."""
    longest = max(x.shape[-1] for x in xs)
    if all(x.shape[-1] == longest for x in xs):
        return torch.cat(xs)
    return torch.cat([pad(x, (0, longest - x.shape[-1])) for x in xs])


def device_like(wanted: str) -> torch.device:
    """Return the kind of device that a run was trained on, or else the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or wanted not in ("auto", found.type):
        return torch.device("cpu")
    return found


def percent(share: float) -> str:
    """Write a share of label noise in per cent."""
    return f"{100 * share:g} %"


def names(runs: Sequence[Finished]) -> list[str]:
    """Return a name for each run, no two alike.

    Names are the titles, or titles with seeds if titles are not distinct. If these are
    not either, they are paths below the folder that holds all runs.
    """
    titles = [run.title for run in runs]
    seeded = [f"{run.title}, seed {run.experiment.seed}" for run in runs]
    for tried in (titles, seeded):
        if len(set(tried)) == len(runs):
            return tried
    return paths(runs)


def paths(runs: Sequence[Finished]) -> list[str]:
    """Return the paths of runs below the folder that holds them all.

    A single run has the name of its folder.
    """
    common = os.path.commonpath([run.folder.parent for run in runs])
    return [run.folder.relative_to(common).as_posix() for run in runs]


def finished(folders: Sequence[Path], data: Path) -> list[Finished]:
    """Open the finished runs in some folders, in the folders' order.

    Args:
        folders: each is a run or a folder above runs, as far up as ``--out``.
        data: where the data sets are. Those of ``--smoke`` are made up again.

    Raises:
        BadInput: a folder is something else, damaged, or without a finished run; the
            images are not there, have changed, or are read from files; a run is given
            twice.
    """
    # Runs share their data sets while they are open.
    shared = lru_cache(maxsize=2)(load)
    runs = [run for folder in folders for run in _inside(folder)]
    counts = Counter(run.folder for run in runs)
    for folder, times in counts.items():
        if times > 1:
            raise BadInput(f"{folder} is given twice.")
    return [_with_data(run, data, shared) for run in runs]


def _inside(folder: Path) -> list[Run]:
    here = folder.resolve()
    homes = _homes(here)
    if not homes:
        raise BadInput(
            f"{folder} is no folder of a run of flatmin train, and none that holds "
            "some, such as runs/figure1."
        )
    for run in homes:
        run.check()
    # A run inside of a run, such as Bootstrap's teacher, is not opened.
    below = [run for run in homes if run.finished and run.folder.is_relative_to(here)]
    if not below:
        raise BadInput(
            f"{folder} holds no finished run. The command that began it continues it."
        )
    return below


def _homes(here: Path) -> list[Run]:
    """Return the run at a path, or those below it, or the one above it."""
    if Run(here).begun:
        return [Run(here)]
    # Only in folders of runs, because a search elsewhere could be of a whole disk.
    if has_runs(here) or any(map(_may_have_runs, here.parents)):
        below = runs_below(here)
        if below:
            return sorted(below, key=lambda run: _by_number(run.folder))
    # The depth of a run's folder in an older comparison.
    above = [Run(folder) for folder in list(here.parents)[:3]]
    around = [run for run in above if run.begun][:1]
    # A result without a configuration is a damaged run; reading it raises the error.
    return around or [run for run in [Run(here)] if run.finished]


def _may_have_runs(above: Path) -> bool:
    """As `has_runs`, of a folder that need not be this user's to read."""
    try:
        return has_runs(above)
    except (BadInput, PermissionError):
        return False


def _by_number(path: Path) -> list[str | int]:
    """Return a sort key by which 10 comes after 9."""
    words = re.split(r"(\d+)", str(path))
    return [int(word) if word.isdigit() else word for word in words]


def _with_data(run: Run, data: Path, load: Load) -> Finished:
    if _was_made_up(run):
        return Finished(run, partial(made_up_images, run.experiment))
    _check_images(run, images_of(run.experiment, data, load))
    return Finished(run, partial(images_of, run.experiment, data, load))


def _was_made_up(run: Run) -> bool:
    """Whether a run was a smoke test."""
    if run.experiment.data not in SETS:
        return False
    try:
        return made_up_images(run.experiment).digest() == run.config.data_sha256
    except BadInput:  # A real run has more images.
        return False


def _check_images(run: Run, images: DataSet) -> None:
    """Refuse images that are read from files, or that the run was not trained on."""
    name = run.experiment.data
    if isinstance(images.train, Files):
        raise BadInput(
            f"{run.folder} was trained on {images.train.y.numel():,} images of {name} "
            "that are read from files. Sharpness and landscapes read all of them many "
            "times and need them in memory."
        )
    if images.digest() != run.config.data_sha256:
        raise BadInput(
            f"the images of {name} are not those that {run.folder} was trained on. Say "
            "with --data where the data sets are that it had."
        )

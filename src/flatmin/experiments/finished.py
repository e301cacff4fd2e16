"""A finished run, whichever command trained it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin.diagnostics import Objective
from flatmin.experiments.errors import BadInput
from flatmin.experiments.store import RunStore

#: Images, standardised and not augmented, and the labels that were trained.
Batch = tuple[Tensor, Tensor]

#: From examples per batch to the model and all it was trained on, in order.
Reader = Callable[[int], tuple[nn.Module, Iterable[Batch]]]


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run whose model can be looked at.

    Attributes:
        folder: of the run, resolved.
        title: what pictures call its model.
        method: what it was trained with, in a few words.
        noise: share of its training labels that are noisy.
        seed: of the run.
        classes: how many its data has.
        rho: the radius at which its sharpness is measured.
        read: gives its model and data. They are loaded when they are asked for, so
            that many runs can be open at once.
    """

    folder: Path
    title: str
    method: str
    noise: float
    seed: int
    classes: int
    rho: float
    read: Reader

    def objective(self, size: int) -> Objective:
        """The loss on the training set with the labels that were trained.

        BatchNorm uses its running statistics, so that the loss is a function of the
        weights alone.

        Args:
            size: examples per batch.

        Raises:
            BadInput: weights or labels are missing or damaged, or the loss is not
                finite.
        """
        model, batches = self.read(size)
        try:
            return Objective(model.eval(), cross_entropy, batches)
        except (ValueError, RuntimeError) as error:
            raise BadInput(f"{self.folder} cannot be measured: {error}") from None


def restored(model: nn.Module, folder: Path) -> nn.Module:
    """The model with the weights that a run has stored.

    Raises:
        BadInput: they are missing, damaged, or another network's.
    """
    weights = RunStore(folder).weights()
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise BadInput(
            f"{folder / 'weights.safetensors'} does not fit the run's network. Remove "
            "the folder and train again."
        ) from None
    return model


def device_like(wanted: str) -> torch.device:
    """The kind of device that a run was trained on, or the CPU if none is here."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or wanted not in ("auto", found.type):
        return torch.device("cpu")
    return found


def percent(share: float) -> str:
    """A share of label noise, for people."""
    return f"{100 * share:g} %"


def names(runs: Sequence[Finished]) -> list[str]:
    """A name for each run, no two alike.

    Titles; with seeds if titles do not tell runs apart; and if seeds do not either,
    paths below the folder that holds them all.
    """
    titles = [run.title for run in runs]
    seeded = [f"{run.title}, seed {run.seed}" for run in runs]
    for tried in (titles, seeded):
        if len(set(tried)) == len(runs):
            return tried
    return paths(runs)


def paths(runs: Sequence[Finished]) -> list[str]:
    """The runs' folders below the one that holds them all."""
    common = os.path.commonpath([run.folder for run in runs])
    return [run.folder.relative_to(common).as_posix() for run in runs]

"""Which examples are trained on and tested on, from the labels alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor
from torch.utils.data import Subset

from flatmin.experiments.datasets._folder import shuffled, split_each_class
from flatmin.experiments.datasets._sets import SETS, load
from flatmin.experiments.datasets._types import DataSet, Files, Split, Tensors
from flatmin.experiments.errors import BadInput
from flatmin.experiments.experiment import Experiment


def first_n(y: Tensor, n: int) -> Tensor:
    """Indices of ``n`` examples, drawn with a fixed seed, in ascending order.

    More examples include those of fewer.

    Args:
        y: labels ``[examples]``.
        n: how many, at most all.

    Raises:
        ValueError: there are fewer.
    """
    if n > len(y):
        raise ValueError(f"{n:,} examples are asked for, of {len(y):,}.")
    return shuffled(len(y))[:n].sort().values


def held_out(y: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Indices that stay, and those of ``share`` of each class, in ascending order.

    Drawn with a fixed seed. Of a class, at least one example is held out and one stays;
    a class with a single example keeps it.

    Args:
        y: labels ``[examples]``.
        share: from 0 to 1.
    """
    stay, held = split_each_class(y, share)
    return stay.sort().values, held.sort().values


def prepared(data: DataSet, experiment: Experiment) -> DataSet:
    """The data that an experiment trains and tests on.

    ``train_examples`` of the training images are drawn first; ``validation`` of these
    then takes the place of the test set. Mean and standard deviation stay those of the
    whole training set. Label noise comes later, and leaves validation labels right.

    Raises:
        BadInput: there are too few training images.
    """
    if (n := experiment.train_examples) is not None:
        try:
            index = first_n(data.train.y, n)
        except ValueError as error:
            raise BadInput(f"train_examples of {data.name}: {error}") from None
        data = replace(data, train=chosen(data.train, index))
    if not experiment.validation:
        return data
    stay, held = held_out(data.train.y, experiment.validation)
    if not len(held):
        raise BadInput(f"{data.name} has too few training images to hold some out.")
    return replace(
        data,
        train=chosen(data.train, stay),
        test=chosen(data.train, held),
        split=f"{experiment.validation:.0%} of each class of the training images",
    )


def images_of(
    experiment: Experiment,
    root: Path,
    load: Callable[[str, Path, int | None], DataSet] = load,
) -> DataSet:
    """What an experiment trains and tests on.

    Args:
        experiment: says which images, and of a folder their size. Those of a set are
            brought to another size on their way to the network.
        root: where data sets are.
        load: reads a data set; may remember what it has read.

    Raises:
        BadInput: as of `load` and `prepared`.
    """
    size = None if experiment.data in SETS else experiment.image_size
    return prepared(load(experiment.data, root, size), experiment)


def chosen(split: Split, index: Tensor) -> Split:
    """The examples of these indices."""
    if isinstance(split, Tensors):
        return Tensors(split.x[index], split.y[index])
    return Files(Subset(split.images, index.tolist()), split.y[index])

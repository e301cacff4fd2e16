"""Choose the examples to train and to test on, from the labels alone; add noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Subset

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets._layout import shuffled, split_each_class
from flatmin.experiments.datasets._series import windows_of
from flatmin.experiments.datasets._sets import SETS, load
from flatmin.experiments.datasets._text import sentences_of
from flatmin.experiments.datasets._types import (
    DataSet,
    Files,
    Series,
    Split,
    check_kind,
    kind_of,
)
from flatmin.experiments.errors import BadInput

#: Where validation examples come from, if the data has a part of its own for them.
_OWN = {
    "images": "the folder's own validation images",
    "sentences": "the sentences that are published for validation",
    "series": "the series' own validation part",
}

#: First seed of the noise of validation labels.
_NOISE_SEEDS = 1_000_000


def first_n(y: Tensor, n: int) -> Tensor:
    """Return indices of ``n`` examples, drawn with a fixed seed, in ascending order.

    A larger ``n`` includes the examples of a smaller one.

    Args:
        y: labels ``[examples]``.
        n: how many, at most all.

    Raises:
        ValueError: there are fewer.
    """
    check_first(n, len(y))
    return shuffled(len(y))[:n].sort().values


def check_first(n: int, there: int) -> None:
    """Refuse to draw more examples than there are.

    Raises:
        ValueError: ``n`` is more.
    """
    if n > there:
        raise ValueError(f"{n:,} examples are asked for, of {there:,}.")


def held_out(y: Tensor, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return indices that stay, and of the ``share`` of each class that is held out.

    Both are in ascending order. Of a class, at least one example is held out and one
    stays; a class with a single example keeps it.

    Args:
        y: labels ``[examples]``.
        share: from 0 to 1.
        seed: of the draw.
    """
    stay, held = split_each_class(y, share, seed)
    return stay.sort().values, held.sort().values


def prepared(data: DataSet, experiment: Experiment) -> DataSet:
    """Return the data that an experiment trains and tests on.

    ``train_examples`` of the training images are drawn first. If ``validation`` is set,
    that share of them then takes the place of the test set, or the data set's own
    validation images do. Mean and standard deviation stay those of the whole training
    set. Label noise comes later, and leaves validation labels right unless
    ``noisy_validation`` is set.

    Of a series, windows are chosen first; ``train_examples`` then counts windows.
    Sentences are cut to ``tokens`` pieces.

    Raises:
        BadInput: there are too few training images or windows, or the data is not what
            the experiment's task needs.
    """
    kind = kind_of(data.train)
    check_kind(experiment, data.name, kind)
    if kind == "series":
        data = windows_of(data, experiment)
    elif kind == "sentences":
        data = sentences_of(data, experiment)
    if (n := experiment.train_examples) is not None:
        try:
            index = first_n(data.train.y, n)
        except ValueError as error:
            raise BadInput(f"train_examples of {data.name}: {error}") from None
        data = replace(data, train=chosen(data.train, index))
    if not experiment.validation:
        return data
    held = _validation(data, experiment)
    return _with_noise(held, experiment) if experiment.noisy_validation else held


def _validation(data: DataSet, experiment: Experiment) -> DataSet:
    """Return the data with validation images in place of the test set."""
    if (own := data.validation) is not None:
        return replace(data, test=own, validation=None, split=_OWN[kind_of(own)])
    share = experiment.validation
    seed = experiment.seed if experiment.noisy_validation else 0
    stay, held = held_out(data.train.y, share, seed)
    if not len(held):
        raise BadInput(f"{data.name} has too few training images to hold some out.")
    return replace(
        data,
        train=chosen(data.train, stay),
        test=chosen(data.train, held),
        split=f"{share:.0%} of each class of the training images",
    )


def _with_noise(data: DataSet, experiment: Experiment) -> DataSet:
    """Return the data with test labels as noisy as the training labels will be."""
    # Not the experiment's seed, with which the training labels are drawn.
    seed, classes = _NOISE_SEEDS + experiment.seed, len(data.classes)
    y = flip_labels(
        data.test.y.cpu(),
        experiment.noise,
        classes,
        seed,
        true_class=experiment.true_class,
    )
    return replace(data, test=replace(data.test, y=y))


def images_of(
    experiment: Experiment,
    root: Path,
    load: Callable[[str, Path, int | None], DataSet] = load,
) -> DataSet:
    """Load the data that an experiment trains and tests on.

    Args:
        experiment: names the data, and the size of a folder's images. Images of a set
            are resized only on their way to the network.
        root: where data sets are.
        load: reads a data set; may remember what it has read.

    Raises:
        BadInput: as of `load` and `prepared`.
    """
    size = None if experiment.data in SETS else experiment.image_size
    return prepared(load(experiment.data, root, size), experiment)


def chosen(split: Split, index: Tensor) -> Split:
    """Return the examples of these indices."""
    if isinstance(split, Files):
        return Files(Subset(split.images, index.tolist()), split.y[index])
    if isinstance(split, Series):
        return replace(split, y=split.y[index])
    return replace(split, x=split.x[index], y=split.y[index])


def flip_labels(
    y: Tensor, share: float, classes: int, seed: int, *, true_class: bool = False
) -> Tensor:
    """Draw a share of the labels anew, which is symmetric label noise.

    Exactly ``round(share * n)`` labels are drawn, all classes being equally likely.
    Seed and n alone decide which. The SAM paper does not say which of the two kinds its
    Table 4 has; at share 0.8 and 10 classes, 20 % of the labels remain right without
    the true class and 28 % with it.

    Args:
        y: labels ``[n]``, int64, from 0 to ``classes - 1``, on the CPU.
        share: of the labels that are drawn, from 0 to 1.
        classes: how many there are.
        seed: of the draws.
        true_class: whether the class that a label had can be drawn. If not, each drawn
            label is a wrong one; if so, one in ``classes`` is right, and ``share``
            is more than the share of wrong labels.

    Returns:
        New labels ``[n]``.

    Raises:
        ValueError: ``share`` is not between 0 and 1.

    Example:
        >>> import torch
        >>> from flatmin.experiments.datasets import flip_labels
        >>> y = torch.zeros(100, dtype=torch.int64)
        >>> flip_labels(y, 0.4, classes=10, seed=0).count_nonzero()
        tensor(40)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share of label noise must be in [0, 1], got {share}.")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(y), generator=generator)[: round(share * len(y))]
    least = 0 if true_class else 1
    shift = torch.randint(least, classes, (len(drawn),), generator=generator)
    noisy = y.clone()
    noisy[drawn] = (y[drawn] + shift) % classes
    return noisy

"""Made-up examples in memory, in place of those of a data set."""

from __future__ import annotations

import torch
from torch import Generator

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets._select import prepared
from flatmin.experiments.datasets._series import made_up_series
from flatmin.experiments.datasets._sets import SETS
from flatmin.experiments.datasets._text import made_up_sentences
from flatmin.experiments.datasets._types import DataSet, Parts, Tensors, data_set

#: Training images of each class; there are half as many test images.
_EACH = 4

#: Number of classes, and side in pixels, in place of photographs.
_CLASSES, _SIDE = 6, 48


def made_up_images(experiment: Experiment) -> DataSet:
    """Make the data of an experiment's smoke test, always the same.

    Channels, size and number of classes are those of its data set, but photographs have
    6 classes. In place of a series there is one of few windows, and in place of
    sentences there are random ones.

    Args:
        experiment: on a data set of `SETS`.

    Raises:
        BadInput: there are fewer images than it asks for.
    """
    source = SETS[experiment.data]
    if source.kind == "series":
        return prepared(made_up_series(experiment), experiment)
    if source.kind == "sentences":
        return prepared(made_up_sentences(experiment), experiment)
    classes = source.classes if source.size else _CLASSES
    side, seed = source.size or _SIDE, Generator().manual_seed(0)
    train, test = (
        made_up_split(n * classes, classes, source.channels, side, seed)
        for n in (_EACH, _EACH // 2)
    )
    split = f"made-up images in place of {source.title}"
    parts = Parts(train, test, tuple(map(str, range(classes))), split)
    return prepared(data_set(experiment.data, parts, source.policy), experiment)


def made_up_split(
    n: int, classes: int, channels: int, side: int, generator: Generator
) -> Tensors:
    """Make images of all classes in turn, each class of one colour, with noise."""
    y = torch.arange(n) % classes
    shape = (n, channels, side, side)
    colour = torch.linspace(50, 200, classes).round().long()[y, None, None, None]
    noise = torch.randint(-50, 51, shape, generator=generator)
    return Tensors((colour + noise).to(torch.uint8), y)

"""The size and the scale of the images that a network is given."""

from __future__ import annotations

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import SETS, DataSet, Tensors
from flatmin.experiments.models._timm import images_for
from flatmin.experiments.models.registry import SCRATCH, is_timms, known_to_timm

_Channels = tuple[float, ...]


def input_size(experiment: Experiment) -> int | None:
    """Side to which images are brought, in pixels; None for their own.

    The experiment's ``image_size``, or else that with which timm's network was trained
    whose weights are taken.
    """
    if experiment.image_size is not None or not _pretrained(experiment):
        return experiment.image_size
    config = images_for(known_to_timm(experiment.model))
    return int(config["input_size"][-1])


def normalisation(experiment: Experiment, data: DataSet) -> tuple[_Channels, _Channels]:
    """Mean and standard deviation per channel, of pixels from 0 to 1.

    Those with which timm's network was trained whose weights are taken, but for data
    sets that have their own, such as CIFAR-10.
    """
    own = data.name in SETS and isinstance(data.train, Tensors)
    if own or not _pretrained(experiment):
        return data.mean, data.std
    config = images_for(known_to_timm(experiment.model))
    return tuple(config["mean"]), tuple(config["std"])


def _pretrained(experiment: Experiment) -> bool:
    return is_timms(experiment.model) and experiment.weights != SCRATCH

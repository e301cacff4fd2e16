"""The size and the scale of the images that a network is given."""

from __future__ import annotations

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import SETS, DataSet, Tensors
from flatmin.experiments.models._timm import images_for
from flatmin.experiments.models.registry import SCRATCH, is_timms, known_to_timm

_Channels = tuple[float, ...]


def input_size(experiment: Experiment) -> int | None:
    """Return the side to which images are brought, in pixels; None for their own.

    It is the experiment's ``image_size``, or else the size with which the pretrained
    weights of timm were trained.
    """
    if experiment.image_size is not None or not _pretrained(experiment):
        return experiment.image_size
    config = images_for(known_to_timm(experiment.model))
    return int(config["input_size"][-1])


def normalisation(experiment: Experiment, data: DataSet) -> tuple[_Channels, _Channels]:
    """Return mean and standard deviation per channel, of pixels from 0 to 1.

    They are those with which the pretrained weights of timm were trained. Data sets in
    memory that have a name, such as CIFAR-10, keep their own.
    """
    own = data.name in SETS and isinstance(data.train, Tensors)
    if own or not _pretrained(experiment):
        return data.mean, data.std
    config = images_for(known_to_timm(experiment.model))
    return tuple(config["mean"]), tuple(config["std"])


def _pretrained(experiment: Experiment) -> bool:
    return is_timms(experiment.model) and experiment.weights != SCRATCH

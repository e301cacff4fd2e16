"""Networks by name, of the paper and of timm, and the images that they are given."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import SETS, DataSet, Tensors
from flatmin.experiments.errors import BadInput, expanded
from flatmin.experiments.models import _timm
from flatmin.experiments.models._weights import forget_classes, load_weights
from flatmin.experiments.models.bert import bert
from flatmin.experiments.models.pyramidnet import pyramidnet
from flatmin.experiments.models.resnet_cifar import resnet_cifar
from flatmin.experiments.models.samformer import samformer
from flatmin.experiments.models.shake_shake import shake_shake
from flatmin.experiments.models.small import small_convnet
from flatmin.experiments.models.wide_resnet import wide_resnet

#: In place of a file of weights: train from scratch.
SCRATCH = "none"

_Channels = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A network with a name.

    Attributes:
        make: called with ``classes``, ``channels`` and options.
        paper: where the network was published.
        millions: of parameters, as the paper prints them; None if it does not.
        note: what to know before using it.
        hub: the repository of its weights on Hugging Face's hub, if they are there.
    """

    make: Callable[..., nn.Module]
    paper: str
    millions: float | None
    note: str = ""
    hub: str = ""


_WRN = "Zagoruyko, Komodakis 2016, arXiv:1605.07146"
_SHAKE = "Gastaldi 2017, arXiv:1705.07485"
_PYRAMID = "Han et al. 2017, arXiv:1610.02915"
_DROP = "Yamada et al. 2019, arXiv:1802.02375"
_RESNET = "He et al. 2016, arXiv:1512.03385"
_P110 = partial(pyramidnet, 110, bottleneck=False, alpha=270)
_P272 = partial(pyramidnet, 272, bottleneck=True, alpha=200)

#: The published networks that are not timm's, by name.
MODELS: dict[str, Entry] = {
    "resnet-20": Entry(partial(resnet_cifar, 20), _RESNET, 0.27, "shortcuts: option A"),
    "resnet-32": Entry(partial(resnet_cifar, 32), _RESNET, 0.46, "shortcuts: option A"),
    "wrn-16-8": Entry(partial(wide_resnet, 16, 8), _WRN, 11.0),
    "wrn-28-10": Entry(partial(wide_resnet, 28, 10), _WRN, 36.5),
    "wrn-40-2": Entry(partial(wide_resnet, 40, 2), _WRN, 2.2),
    "wrn-40-10-no-bn": Entry(
        partial(wide_resnet, 40, 10, batch_norm=False),
        "Foret et al. 2021, arXiv:2010.01412, Figure 3",
        None,
        "SkipInit and biases in place of BatchNorm; the paper does not say",
    ),
    "shake-shake-26-2x96d": Entry(partial(shake_shake, 26, 96), _SHAKE, 26.2),
    "pyramidnet-110": Entry(
        _P110, _PYRAMID, 28.3, "alpha 270; the paper's formula makes 28.5 M"
    ),
    "pyramidnet-110-shakedrop": Entry(
        partial(_P110, shakedrop=True), _DROP, None, "alpha 270"
    ),
    "pyramidnet-272": Entry(
        _P272, _PYRAMID, 26.0, "alpha 200; the SAM code's (`rounded`) has 26.2 M"
    ),
    "pyramidnet-272-shakedrop": Entry(
        partial(_P272, shakedrop=True), _DROP, None, "alpha 200; the SAM code rounds"
    ),
}

#: The networks that forecast a series, by name.
FORECASTERS: dict[str, Entry] = {
    "samformer": Entry(samformer, "Ilbert et al. 2024, arXiv:2402.10198", None),
}

#: The networks that read sentences, by name.
READERS: dict[str, Entry] = {
    "minilm-l6": Entry(
        partial(bert, layers=6, width=384, heads=12),
        "Wang et al. 2020, arXiv:2002.10957",
        None,
        hub="sentence-transformers/all-MiniLM-L6-v2",
    ),
    "bert-tiny": Entry(
        partial(bert, layers=2, width=128, heads=2),
        "Turc et al. 2019, arXiv:1908.08962",
        4.4,
    ),
}

#: The network of ``flatmin compare``, and the smallest of each kind above, which train
#: in seconds. None has fewer than 8 channels: the gradient of a 1x1 convolution with a
#: stride and fewer inputs writes past its memory (oneDNN issue 6035, CPU).
SMALL: dict[str, Callable[..., nn.Module]] = {
    "small-convnet": small_convnet,
    "resnet-8": partial(resnet_cifar, 8),
    "wrn-10-1": partial(wide_resnet, 10, 1),
    "wrn-10-1-no-bn": partial(wide_resnet, 10, 1, batch_norm=False),
    "shake-shake-8-2x8d": partial(shake_shake, 8, 8),
    "pyramidnet-11": partial(pyramidnet, 11, bottleneck=True, alpha=8),
    "pyramidnet-11-shakedrop": partial(
        pyramidnet, 11, bottleneck=True, alpha=8, shakedrop=True
    ),
}

_PUBLISHED = {**MODELS, **FORECASTERS, **READERS}


def build(
    name: str,
    classes: int,
    channels: int = 3,
    weights: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build the network of a name; it maps ``[n, channels, h, w]`` to ``[n, classes]``.

    The networks of `FORECASTERS` map windows of a series ``[n, channels, lookback]`` to
    ``[n, channels, classes]``, and those of `READERS` word pieces ``[n, length]`` to
    ``[n, classes]``.

    Args:
        name: a key of one of the dictionaries here, or a name that timm knows:
            ``resnet50``, ``tf_efficientnet_b7.ra_in1k``,
            ``timm/tf_efficientnet_l2.ns_jft_in1k_475``.
        classes: length of the output rows: the classes, or the steps of a forecast.
        channels: of the images, or of the series; 0 of sentences.
        weights: ``"none"`` to start from scratch, or a ``.safetensors`` or ``.pth``
            file with the network's weights. None for the pretrained weights of timm
            or of a network of `READERS`, which are downloaded; networks without such
            weights then start from scratch.
            The last layer is zero if the weights are for another number of classes.
        options: for the function that builds the network, ``alpha=84`` of a
            PyramidNet; of a network of timm's, those of ``timm.create_model``, such as
            ``drop_rate=0.1``.

    Raises:
        BadInput: no network has this name (the message has the nearest), timm is not
            installed, an option is refused, or the weights cannot be had.

    Example:
        >>> from flatmin.experiments.models import build
        >>> sum(p.numel() for p in build("resnet-32", classes=10).parameters())
        464154
    """
    if is_timms(name):
        known = known_to_timm(name)
        network = _timm.create(known, classes, channels, weights is None, options)
        if weights is None and not _timm.knows_classes(network, classes):
            forget_classes(network)
    else:
        make = _PUBLISHED[name].make if name in _PUBLISHED else SMALL[name]
        network = _made(name, make, classes=classes, channels=channels, **options)
        if weights is None and name in _PUBLISHED and _PUBLISHED[name].hub:
            load_weights(network, _downloaded(name, _PUBLISHED[name].hub))
    if weights not in (None, SCRATCH):
        load_weights(network, expanded(weights))
    return network


def is_timms(name: str) -> bool:
    """Whether a name is not that of one of the networks here."""
    return name not in _PUBLISHED and name not in SMALL


def _made(name: str, make: Callable[..., nn.Module], **options: Any) -> nn.Module:
    try:
        return make(**options)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BadInput(f"cannot build {name}: {error}") from None


def _downloaded(name: str, repository: str) -> Path:
    """Return the file of a network's published weights, which stays on this machine."""
    from huggingface_hub import hf_hub_download

    try:
        with _timm.hub():
            return Path(hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # The hub raises errors of many kinds.
        raise _timm.missing(name, error) from None


def known_to_timm(name: str) -> str:
    """Return a network's name in timm.

    Raises:
        BadInput: timm has no such network, or is not installed.
    """
    timm, bare = _timm.library(name), name.removeprefix(_timm.PREFIX)
    if timm.is_model(bare):
        return bare
    known = [*_PUBLISHED, *SMALL, *timm.list_models()]
    near = difflib.get_close_matches(bare, known, n=3)
    hint = (
        f"Did you mean {' or '.join(near)}?"
        if near
        else f"There are {', '.join(MODELS)}, and timm.list_models()."
    )
    raise BadInput(f"no network is called {name!r}. {hint}")


def input_size(experiment: Experiment) -> int | None:
    """Return the side to which images are brought, in pixels; None for their own.

    It is the experiment's ``image_size``, or else the size with which the pretrained
    weights of timm were trained.
    """
    if experiment.image_size is not None or not _pretrained(experiment):
        return experiment.image_size
    config = _timm.images_for(known_to_timm(experiment.model))
    return int(config["input_size"][-1])


def normalisation(experiment: Experiment, data: DataSet) -> tuple[_Channels, _Channels]:
    """Return mean and standard deviation per channel, of pixels from 0 to 1.

    They are those with which the pretrained weights of timm were trained. Data sets in
    memory that have a name, such as CIFAR-10, keep their own.
    """
    own = data.name in SETS and isinstance(data.train, Tensors)
    if own or not _pretrained(experiment):
        return data.mean, data.std
    config = _timm.images_for(known_to_timm(experiment.model))
    return tuple(config["mean"]), tuple(config["std"])


def _pretrained(experiment: Experiment) -> bool:
    return is_timms(experiment.model) and experiment.weights != SCRATCH

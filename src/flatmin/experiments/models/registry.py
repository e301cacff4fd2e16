"""Networks by name: those of the paper, and any of timm's."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from flatmin.experiments.errors import BadInput
from flatmin.experiments.models.pyramidnet import pyramidnet
from flatmin.experiments.models.resnet_cifar import resnet_cifar
from flatmin.experiments.models.shake_shake import shake_shake
from flatmin.experiments.models.small import small_convnet
from flatmin.experiments.models.wide_resnet import wide_resnet


@dataclass(frozen=True, slots=True)
class Entry:
    """A network with a name.

    Attributes:
        make: called with ``classes``, ``channels`` and options.
        paper: where the network was published.
        millions: of parameters, as the paper prints them; None if it does not.
        note: what to know before using it.
    """

    make: Callable[..., nn.Module]
    paper: str
    millions: float | None
    note: str = ""


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

#: The network of ``flatmin compare``, and those above at their smallest, to try a
#: training run in seconds.
SMALL: dict[str, Callable[..., nn.Module]] = {
    "small-convnet": small_convnet,
    "resnet-8": partial(resnet_cifar, 8),
    "wrn-10-1": partial(wide_resnet, 10, 1),
    "wrn-10-1-no-bn": partial(wide_resnet, 10, 1, batch_norm=False),
    "shake-shake-8-2x4d": partial(shake_shake, 8, 4),
    "pyramidnet-11": partial(pyramidnet, 11, bottleneck=True, alpha=8),
    "pyramidnet-11-shakedrop": partial(
        pyramidnet, 11, bottleneck=True, alpha=8, shakedrop=True
    ),
}


def build(name: str, classes: int, channels: int = 3, **options: Any) -> nn.Module:
    """The network of that name, ``[n, channels, h, w]`` to ``[n, classes]``.

    Args:
        name: a key of `MODELS` or `SMALL`, or a name that timm knows: ``resnet50``,
            ``tf_efficientnet_b7.ra_in1k``, ``tf_efficientnet_l2.ns_jft_in1k_475``.
        classes: length of the output rows.
        channels: of the images.
        options: for the function that builds the network, ``alpha=84`` of a
            PyramidNet; of a network of timm's, those of ``timm.create_model``, such as
            ``pretrained=True``.

    Raises:
        BadInput: no network has this name (the message has the nearest), or it can only
            be timm's and timm is not installed.

    Example:
        >>> from flatmin.experiments.models import build
        >>> sum(p.numel() for p in build("resnet-32", classes=10).parameters())
        464154
    """
    if name in MODELS:
        return MODELS[name].make(classes=classes, channels=channels, **options)
    if name in SMALL:
        return SMALL[name](classes=classes, channels=channels, **options)
    timm = _timm(name)
    if not timm.is_model(name):
        raise BadInput(f"no network is called {name!r}. {_nearest(name, timm)}")
    return timm.create_model(name, num_classes=classes, in_chans=channels, **options)


def _timm(name: str) -> Any:
    # It takes seconds to import, and most networks do not need it.
    try:
        import timm
    except ModuleNotFoundError as missing:
        if missing.name != "timm":
            raise
        raise BadInput(
            f"{name!r} is none of {', '.join(MODELS)}. For a network of timm's: "
            'pip install "flatmin[experiments]".'
        ) from None
    return timm


def _nearest(name: str, timm: Any) -> str:
    known = [*MODELS, *SMALL, *timm.list_models()]
    near = difflib.get_close_matches(name, known, n=3)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"There are {', '.join(MODELS)}, and timm.list_models()."

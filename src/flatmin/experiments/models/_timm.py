"""timm's networks, their published weights, and the images that these expect."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from threading import Thread
from typing import Any

import torch
from torch import nn

from flatmin.experiments.errors import BadInput

PREFIX = "timm/"

#: Seconds within which the hub of the weights has to answer.
_PATIENCE = 4.0

#: Options of ``timm.create_model`` that ``build`` sets from its own arguments.
_DECIDED = {
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "num_classes",
    "in_chans",
}


def library(name: str) -> Any:
    """Import and return the package timm.

    Raises:
        BadInput: it is not installed.
    """
    # Imported late: it takes seconds, and most networks do not need it.
    try:
        import timm
    except ModuleNotFoundError as missing:
        if missing.name != "timm":
            raise
        raise BadInput(
            f"{name!r} is none of the networks of flatmin. For those of timm: "
            'pip install "flatmin[experiments]".'
        ) from None
    return timm


def create(
    name: str, classes: int, channels: int, pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    """Build one of timm's networks.

    Args:
        name: as timm has it.
        classes: length of the output rows.
        channels: of the images.
        pretrained: whether to download its weights.
        options: others of ``timm.create_model``.

    Raises:
        BadInput: timm refuses an option, or its weights cannot be had.
    """
    if named := sorted(_DECIDED & options.keys()):
        raise BadInput(
            f"{named[0]} is no option of a network: the images and --weights decide it."
        )
    make = partial(
        library(name).create_model,
        name,
        num_classes=classes,
        in_chans=channels,
        **options,
    )
    try:
        with hub() if pretrained else nullcontext():
            network: nn.Module = make(pretrained=pretrained)
    except Exception as error:  # Networks and the hub raise errors of many kinds.
        if pretrained and _builds(make):
            raise missing(name, error) from None
        raise BadInput(f"timm cannot build {name}: {_line(error)}") from None
    return network


def knows_classes(network: Any, classes: int) -> bool:
    """Whether the last layer has its pretrained weights, being for as many classes."""
    return bool(network.pretrained_cfg["num_classes"] == classes)


def missing(name: str, error: Exception) -> BadInput:
    """Return the error that published weights cannot be had."""
    return BadInput(
        f"the pretrained weights of {name} cannot be had ({_line(error)}). Give a "
        "file: --weights FILE.safetensors, or --set weights=FILE.safetensors for "
        "flatmin train. To start from scratch, write none in its place."
    )


@contextmanager
def hub() -> Iterator[None]:
    """Within the block, use only weights on this machine if the hub does not answer.

    By itself, the hub's client would retry for most of a minute.
    """
    from huggingface_hub import constants

    # Keep it from printing its retries; the error says enough.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers() -> bool:
    from huggingface_hub import constants, get_session

    found: list[object] = []

    def ask() -> None:
        with suppress(Exception):
            found.append(get_session().head(constants.ENDPOINT, timeout=_PATIENCE))

    # In a thread, because looking up a host's name has no timeout.
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return bool(found)


def images_for(name: str) -> dict[str, Any]:
    """Return the ``input_size``, ``mean`` and ``std`` of timm's pretrained weights.

    Raises:
        BadInput: timm is not installed, or has no such weights.
    """
    timm = library(name)
    from timm.data.config import resolve_data_config

    try:
        config = timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise BadInput(f"timm has no weights called {name}: {_line(error)}") from None
    resolved: dict[str, Any] = resolve_data_config(pretrained_cfg=config.to_dict())
    return resolved


def _builds(make: Callable[[], nn.Module]) -> bool:
    """Whether the network can be built without its weights."""
    try:
        with torch.device("meta"):
            make()
    except Exception:
        return False
    return True


def _line(error: Exception) -> str:
    return " ".join(str(error).partition("\n")[0].split()) or type(error).__name__

"""Read a network's weights from a file, without running code that it may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from flatmin.experiments.errors import BadInput
from flatmin.experiments.models.bert import SentenceClassifier

_PICKLES = (".pth", ".pt", ".bin")

#: Keys under which training programs store the weights beside other things.
_KEYS = ("state_dict", "model")

#: A buffer that BatchNorm has since torch 0.4.1; older files lack it.
_COUNTED = "num_batches_tracked"


def load_weights(network: nn.Module, path: Path) -> None:
    """Give a network the weights in a file.

    The last layer becomes zero if the file lacks it or has it for another number of
    classes: see `forget_classes`.

    Args:
        network: any.
        path: a ``.safetensors`` file, or one that ``torch.save`` wrote, of a state dict
            or a dictionary with one under ``"state_dict"`` or ``"model"``.

    Raises:
        BadInput: the file is missing, or holds anything but weights, weights of another
            network (the message names two that differ), or values that are no numbers.
    """
    found, own = _read(path), network.state_dict()
    if isinstance(network, SentenceClassifier):
        found = network.translated(found)
    last = [name for name in own if name.rpartition(".")[0] in _last_layers(network)]
    if any(name not in found or found[name].shape != own[name].shape for name in last):
        layers = {name.rpartition(".")[0] for name in last}
        found = {k: x for k, x in found.items() if k.rpartition(".")[0] not in layers}
        forget_classes(network)
        found |= {name: own[name] for name in last}
    _fit(network, path, found)


def forget_classes(network: nn.Module) -> None:
    """Make the last layer zero, before the network is fine-tuned for new classes.

    The first loss is then that of guessing. Random weights of that layer would send
    the other layers gradients that can ruin them in a few steps: timm's are so large
    for few classes that EfficientNet-Lite0 begins with a loss of 9 instead of 2.3.
    """
    named = _last_layers(network)
    with torch.no_grad():
        for name, w in network.named_parameters():
            if name.rpartition(".")[0] in named:
                w.zero_()


def restore(network: nn.Module, path: Path) -> None:
    """Give a network all the weights in a file, the last layer's too.

    Raises:
        BadInput: as `load_weights`.
    """
    _fit(network, path, _read(path))


def _fit(network: nn.Module, path: Path, found: dict[str, Tensor]) -> None:
    if wrong := _differences(found, network.state_dict()):
        named = " and ".join(wrong[:2])
        raise BadInput(
            f"{path} has the weights of another network: {named} ({len(wrong)} in all)."
        )
    for name, x in found.items():
        if x.is_complex() or bool(x.isnan().any()):
            raise BadInput(f"{path} is damaged: {name} has values that are no numbers.")
    network.load_state_dict(found)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BadInput(f"no such file of weights: {path}")
    if (kind := path.suffix.lower()) not in (".safetensors", *_PICKLES):
        known = ", ".join((".safetensors", *_PICKLES))
        raise BadInput(f"{path}: weights are read from {known} files.")
    try:
        whole: Any = (
            load_file(path)
            if kind == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # A damaged pickle raises anything.
        raise BadInput(
            f"{path} is damaged, or holds more than tensors, which is not read "
            f"({type(error).__name__})."
        ) from None
    return _state_dict(path, whole)


def _state_dict(path: Path, whole: Any) -> dict[str, Tensor]:
    inside: Any = whole
    if isinstance(whole, dict):
        kept: dict[Any, Any] = whole
        inside = next((kept[k] for k in _KEYS if kept.get(k) is not None), kept)
    if not isinstance(inside, dict):
        raise BadInput(f"{path} is no state dict: it is a {type(inside).__name__}.")
    state: dict[Any, Any] = inside
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise BadInput(
                f"{path} is no state dict: {name!r} is a {type(value).__name__}."
            )
        if not _is_plain(value):
            raise BadInput(
                f"{path}: {name} is no plain tensor (sparse, quantised, or "
                "without values). Store the values of a dense one."
            )
    return {name.removeprefix("module."): value for name, value in state.items()}


def _is_plain(x: Tensor) -> bool:
    """Whether a tensor holds a number for each of its places."""
    return x.layout == torch.strided and not (x.is_quantized or x.is_meta)


def _last_layers(network: nn.Module) -> tuple[str, ...]:
    """Name the layers that make the output: by timm's list, or the last linear one."""
    config: Any = getattr(network, "pretrained_cfg", None)
    if config is not None:
        named = config["classifier"]
        return (named,) if isinstance(named, str) else tuple(named)
    linear = [k for k, part in network.named_modules() if isinstance(part, nn.Linear)]
    return tuple(linear[-1:])


def _differences(found: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    missing = [
        f"{name} is missing"
        for name in own
        if name not in found and not name.endswith(_COUNTED)
    ]
    unknown = [f"{name} is unknown" for name in found if name not in own]
    sizes = [
        f"{name} is {list(x.shape)} in place of {list(own[name].shape)}"
        for name, x in found.items()
        if name in own and x.shape != own[name].shape
    ]
    return [*sizes, *missing, *unknown]

"""Store the weights of a network, and build it again from its name and them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from flatmin.experiments.errors import BadInput
from flatmin.experiments.models import SCRATCH, build
from flatmin.experiments.runs.images import Inputs


def restored(
    name: str,
    options: Mapping[str, Any],
    images: Inputs,
    path: Path,
    advice: str,
) -> nn.Module:
    """Build a network with stored weights, in evaluation mode, on the CPU.

    Args:
        name: of the network, see `flatmin.experiments.models.build`.
        options: for the function that builds it.
        images: how data becomes its input.
        path: of its weights.
        advice: what to do if the weights cannot be used.

    Raises:
        BadInput: there is no such network, or the weights are missing, damaged, or
            another network's.
    """
    weights, config = tensors(path, advice), path.with_name("config.json")
    decided = {"name", "classes", "channels", "weights", *images.options}
    if named := sorted(decided & options.keys()):
        raise BadInput(f"{config} is damaged: {named[0]} is no option. {advice}")
    try:
        network = build(name, *images.shape, SCRATCH, **images.options, **options)
    except BadInput as refused:
        raise BadInput(f"{config}: {refused}") from None
    if any(w.dtype == torch.float64 for w in weights.values()):
        network = network.double()
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise BadInput(f"{path} does not fit the run's network. {advice}") from None
    return network.eval()


def packed(weights: Mapping[str, Tensor]) -> bytes:
    """Return the contents of a file with tensors; what they share is stored for each.

    safetensors refuses tensors that share memory, such as those of tied layers.

    Args:
        weights: by name, on any device.
    """
    seen: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, given in weights.items():
        w = given.detach().cpu().contiguous()
        place = w.untyped_storage().data_ptr()
        own[name] = w.clone() if place in seen else w
        seen.add(place)
    return save(own)


def tensors(path: Path, advice: str) -> dict[str, Tensor]:
    """Read the tensors in a file, by name.

    Raises:
        BadInput: it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} cannot be read ({error}). {advice}") from None

"""Spectral norms: their singular vectors belong to one weight, not to a mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn
from torch.nn.utils.parametrizations import (
    _SpectralNorm,  # pyright: ignore[reportPrivateUsage]
)
from torch.nn.utils.parametrize import ParametrizationList

from flatmin.diagnostics._guards import older_spectral_norms

#: Rounds of the power method, as many as torch begins with.
_ROUNDS = 15


def singular_vectors(model: nn.Module) -> set[str]:
    """Return the names of the buffers that hold singular vectors of weights."""
    found: set[str] = set()
    # torch does not say what named_modules() yields.
    modules = cast("Iterable[tuple[str, nn.Module]]", model.named_modules())
    for prefix, module in modules:
        at = f"{prefix}." if prefix else ""
        if isinstance(module, _SpectralNorm):
            found |= {f"{at}_u", f"{at}_v"}
        for hook in older_spectral_norms(module):
            found |= {f"{at}{hook.name}_u", f"{at}{hook.name}_v"}
    return found


@torch.no_grad()
def estimate(model: nn.Module) -> None:
    """Move singular vectors to those of the weights as they are."""
    for module in model.modules():
        if isinstance(module, ParametrizationList):
            _iterate(module)
        for hook in older_spectral_norms(module):
            for _ in range(_ROUNDS):
                hook.compute_weight(module, do_power_iteration=True)


def _iterate(weight: ParametrizationList) -> None:
    norms = [one for one in weight.modules() if isinstance(one, _SpectralNorm)]
    modes = [one.training for one in norms]
    for one in norms:
        one.training = True
    try:
        for _ in range(_ROUNDS if norms else 0):
            weight()
    finally:
        for one, mode in zip(norms, modes, strict=True):
            one.training = mode

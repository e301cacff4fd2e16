"""Noise on the weights that low-rank adapters (LoRA) make: ``W + s B A``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin.core import _tensors as ts
from flatmin.core._adapted import Adapted, adapted
from flatmin.core._draws import ADAPTER, seed_of
from flatmin.core._joints import Radius, of_group
from flatmin.core._method import Method, Traits
from flatmin.core._program import Ascent, Ask, Gradients, Program, Step


@dataclass(frozen=True, slots=True)
class AdapterNoise(Method):
    """One gradient, at a random point around the weights that adapters make.

    Attributes:
        radius: the deviation of the noise, relative to each row of ``W + s B A``.
    """

    radius: Radius = of_group

    @property
    def traits(self) -> Traits:
        """The only pass is at the random point."""
        return Traits(skips_w=True)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        rho = self.radius(step)
        return (yield Ask(_drawn(step, rho) if any(rho) else None))


def _drawn(step: Step, rho: list[float]) -> Ascent:
    """The noise of a step: alike in all processes, and when the run is resumed."""
    at = {id(p): i for i, p in enumerate(step.w)}
    eps: Gradients = [None] * len(step.w)
    frozen: list[tuple[Tensor, Tensor]] = []
    for k, layer in enumerate(adapted(step.model, step.w)):
        trained = next(at[id(t)] for t in layer.tensors() if id(t) in at)
        seed = seed_of(step.index, ADAPTER, k)
        noise = _noise(layer, rho[step.group_of[trained]], seed)
        if id(layer.weight) in at:
            eps[at[id(layer.weight)]] = noise
        else:
            frozen.append((layer.weight, noise))
    drawn = [*(e for e in eps if e is not None), *(e for _, e in frozen)]
    norm = ts.norm(drawn)
    ok = (norm > 0) & norm.isfinite()
    ts.zero_unless_(drawn, ok)
    return Ascent(tuple(eps), norm, ok, tuple(frozen))


def _noise(layer: Adapted, rho: float, seed: int) -> Tensor:
    """``N(0, (rho / sqrt(n_in))^2 ||W'_i||^2)`` in every row i, laid out as W."""
    w, sizes = layer.weight, layer.row_norms()
    sigma = rho / math.sqrt(w.numel() / len(sizes)) * sizes
    draw = torch.Generator(w.device).manual_seed(seed)
    z = torch.randn(w.shape, generator=draw, device=w.device)
    return ((sigma if layer.turned else sigma[:, None]) * z).to(w.dtype)

"""Filters: which parameters, or entries of them, move."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from flatmin.core import _checks as checks
from flatmin.core._joints import Filter
from flatmin.core._program import Gradients, Step
from flatmin.core._ranking import keys_of, limit
from flatmin.core._shards import Groups, Shards, reduced
from flatmin.core.combine import centre

#: Layers that normalise; most others in use derive from one of these.
NORMS = (
    nn.modules.batchnorm._NormBase,  # pyright: ignore[reportPrivateUsage]
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


def named(predicate: Callable[[str], bool]) -> Filter:
    """Parameters whose name in the model satisfies the predicate.

    The first step raises a ValueError if there is none.
    """
    if not callable(predicate):
        raise TypeError(
            f"predicate must be a function of a name, got {predicate!r}. Write "
            f"named(lambda name: {str(predicate)!r} in name)."
        )
    return partial(_named, predicate)


def within(*kinds: type[nn.Module]) -> Filter:
    """The own parameters of modules of these types, whatever they are called.

    The first step raises a ValueError if there is none.
    """
    if not kinds or not all(isinstance(kind, type) for kind in kinds):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"within() needs types of modules, got {kinds!r}.")
    return partial(_within, kinds)


def centred(step: Step, g: Gradients) -> Gradients:
    """Everything moves, without the mean of each weight vector."""
    return centre(step.w, g)


def outliers(share: float) -> Filter:
    """In each tensor, the entries whose z-score is in the top ``1 - share``.

    The z-score is ``|x - mean| / std`` in its tensor. If no entry is left, the whole
    tensor moves.
    """
    return partial(
        _all_outliers, checks.inside("share", share, "[0, 1)", "ZSharp's is 0.95")
    )


def by_chance(probability: float, seed: int = 0) -> Filter:
    """Each tensor with this probability; the same in all processes and resumed runs."""
    checks.inside("probability", probability, "(0, 1]", "ESAM's is 0.6")
    return partial(_by_chance, probability, seed)


def _by_chance(chance: float, seed: int, step: Step, g: Gradients) -> Gradients:
    draw = random.Random(f"{seed} {step.index}")
    return [x if draw.random() < chance else None for x in g]


def _named(predicate: Callable[[str], bool], step: Step, g: Gradients) -> Gradients:
    names = {id(p): name for name, p in step.model.named_parameters()}
    return _chosen([predicate(names.get(id(p), "")) for p in step.w], step, g)


def _within(kinds: tuple[type[nn.Module], ...], step: Step, g: Gradients) -> Gradients:
    inside = {id(p) for p in parameters_within(step.model, kinds)}
    return _chosen([id(p) in inside for p in step.w], step, g)


def parameters_within(
    model: nn.Module, kinds: tuple[type[nn.Module], ...]
) -> list[nn.Parameter]:
    """The own parameters of the model's modules of these types."""
    return [
        p
        for module in model.modules()
        if isinstance(module, kinds)
        for p in module.parameters(recurse=False)
    ]


def _chosen(moves: list[bool], step: Step, g: Gradients) -> Gradients:
    if not any(moves):
        names = [name for name, p in step.model.named_parameters() if p.requires_grad]
        some = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise ValueError(
            "the filter matches no parameter that the optimizer trains, so that no "
            f"weight would move. The model has {some}."
        )
    return [x if moving else None for moving, x in zip(moves, g, strict=True)]


def _all_outliers(share: float, step: Step, g: Gradients) -> Gradients:
    found = list(g)
    for groups, places in Shards.of(step.w).kinds:
        for i in places:
            x, n = g[i], step.w[i].numel()
            # The quantile's neighbour from below, counted from 1.
            at = math.floor(share * (n - 1)) + 1
            if x is not None and n > 0:
                found[i] = _of_part(x, n, at, groups) if groups else _outliers(x, at)
    return found


def _outliers(x: Tensor, at: int) -> Tensor:
    z = ((x - x.mean()) / x.std(correction=0)).abs().flatten()
    # Not torch.quantile, which takes no long tensors.
    top = (z > z.kthvalue(at).values).view_as(x)
    return torch.where(top.any(), x * top, x)


def _of_part(x: Tensor, n: int, at: int, groups: Groups) -> Tensor:
    """Keep the outliers of a tensor whose other parts are on other processes."""
    mean = reduced(x.sum(), groups) / n
    # The standard deviation, by which all are divided, does not change their order.
    far = keys_of([(x - mean).abs()])
    least, _ = limit([(groups, far)], n - at + 1)
    top = (far > least).view_as(x)
    return torch.where(reduced(top.sum(), groups) > 0, x * top, x)

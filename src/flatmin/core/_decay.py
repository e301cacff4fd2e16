"""Weight decay as a part of the loss, which the ascent then sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from flatmin.core._method import Method, Traits
from flatmin.core._program import Ask, Entries, Gradients, Program, Step, translated
from flatmin.core._shards import local


@dataclass(frozen=True, slots=True)
class Decayed(Method):
    r"""A method on ``L(w) + lambda/2 ||w||^2``, lambda each group's ``weight_decay``.

    The gradient at ``w`` becomes ``g + lambda w``, that at ``w + eps`` becomes
    ``g_eps + lambda (w + eps)``, as in the paper's code, where the penalty is part of
    the loss; a product of the Hessian with v gains ``lambda v``. If the loss has two
    parts, the penalty belongs to the flat one. The base optimizer still adds its own
    ``lambda w``, so this term is subtracted from the vector that the method returns.

    Attributes:
        method: what runs on the penalised loss.

    Example:
        >>> from flatmin.core import Decayed, TwoPoint
        >>> Decayed(TwoPoint()).traits.needs_unscaled
        True
    """

    method: Method

    @property
    def traits(self) -> Traits:
        """The method's; gradients must be unscaled, because ``lambda w`` is added."""
        return replace(self.method.traits, needs_unscaled=True)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        decay = step.per_parameter(
            [group.get("weight_decay", 0.0) for group in step.groups]
        )
        penalised = partial(_penalised, step.w, decay)
        descend = yield from translated(self.method(step), penalised)
        return _plus(descend, [-c for c in decay], _moved(step.w, ()))


def _penalised(
    w: list[Tensor], decay: list[float], ask: Ask, g: Gradients
) -> Gradients:
    """The gradient of the penalised loss, or its Hessian times a vector."""
    if ask.part == "rest":
        return g
    there = ask.along or _moved(w, ask.at.eps if ask.at else ())
    return _plus(g, decay, there)


@torch.no_grad()
def _moved(w: list[Tensor], eps: Entries) -> Gradients:
    """``w + eps``; an eps of None is zero."""
    here = [p.detach() for p in local(w)]
    if not eps:
        return [*here]
    return [p if e is None else p + e for p, e in zip(here, eps, strict=True)]


def _plus(g: Gradients, c: Sequence[float], x: Gradients) -> Gradients:
    """``g + c x`` where there is a gradient."""
    return [
        g_i if g_i is None or x_i is None or c_i == 0 else g_i + c_i * x_i
        for g_i, c_i, x_i in zip(g, c, x, strict=True)
    ]

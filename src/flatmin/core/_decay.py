"""Weight decay as a part of the loss, which the ascent then sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin.core._program import Gradients, Method, Program, Step
from flatmin.core._shards import local


@dataclass(frozen=True, slots=True)
class Decayed:
    r"""A method on ``L(w) + lambda/2 ||w||^2``, lambda each group's ``weight_decay``.

    The gradient at ``w`` becomes ``g + lambda w``, that at ``w + eps`` becomes
    ``g_eps + lambda (w + eps)``, as in the paper's code, where the penalty is part of
    the loss; a product of the Hessian with v gains ``lambda v``. The base optimizer
    goes on to add ``lambda w`` of its own, so what the method returns is handed on
    without it.

    Attributes:
        method: what runs on the penalised loss.

    Example:
        >>> from flatmin.core import Decayed, TwoPoint
        >>> Decayed(TwoPoint()).needs_unscaled
        True
    """

    method: Method

    @property
    def needs_unscaled(self) -> bool:
        """Always, for a gradient times a loss scale does not add to a weight."""
        return True

    @property
    def remembers(self) -> tuple[str, ...]:
        """What the method within remembers."""
        return getattr(self.method, "remembers", ())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the method within notes."""
        return getattr(self.method, "notes", ())

    @property
    def adds_up(self) -> bool:
        """As the method within."""
        return getattr(self.method, "adds_up", True)

    def __call__(self, step: Step) -> Program:
        """One step of the method."""
        decay = [step.groups[k].get("weight_decay", 0.0) for k in step.group_of]
        less = [-c for c in decay]
        program = self.method(step)
        ask = next(program)
        while True:
            # The engine empties this list; the entries are needed after the pass.
            eps = [*ask.at.eps] if ask.at else []
            g = yield ask
            pull = ask.along or _moved(step.w, eps)
            try:
                ask = program.send(_plus(g, decay, pull))
            except StopIteration as done:
                return _plus(done.value, less, _moved(step.w, []))


@torch.no_grad()
def _moved(w: list[Tensor], eps: Gradients) -> Gradients:
    """``w + eps``; an eps of None is zero."""
    here = [p.detach() for p in local(w)]
    if not eps:
        return [*here]
    return [p if e is None else p + e for p, e in zip(here, eps, strict=True)]


def _plus(g: Gradients, c: list[float], x: Gradients) -> Gradients:
    """``g + c x`` where there is a gradient."""
    return [
        g_i if g_i is None or x_i is None or c_i == 0 else g_i + c_i * x_i
        for g_i, c_i, x_i in zip(g, c, x, strict=True)
    ]

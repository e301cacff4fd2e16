"""The scope joint: who shares one perturbation; the engine applies it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import nn

from flatmin.core._program import Gradients


class Scope(Protocol):
    """Surrounds the passes that only climb, and shares what they find."""

    def climbing(self, model: nn.Module) -> AbstractContextManager[object]:
        """What surrounds a pass whose gradient serves the ascent alone."""
        ...

    def share(self, g: Gradients) -> Gradients:
        """The gradient along which all who share the perturbation climb."""
        ...


class Replica:
    """Each process climbs along its own gradient, without communication."""

    def climbing(self, model: nn.Module) -> AbstractContextManager[object]:
        """Nothing to switch off in a model that does not communicate."""
        del model
        return nullcontext()

    def share(self, g: Gradients) -> Gradients:
        """``g`` as it is."""
        return g

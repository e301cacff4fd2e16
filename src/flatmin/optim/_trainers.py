"""Refusals of trainers that step by themselves, with the lines to write for each.

Their hooks would run once per pass: gradients would be clipped before the method has
combined them, and each step would be logged or counted twice. Trainers are recognised
by the modules that are loaded or that call; none is imported.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from flatmin.optim._lightning import PACKAGES

#: Top-level package of a closure -> what it does in every pass, and what to write.
INSTEAD = {
    "composer": (
        "Composer's closure runs its events",
        "Write the training loop yourself: for probe in optimizer.probes()",
    ),
    "skorch": (
        "skorch's closure calls on_grad_computed",
        "Use the mixin of flatmin.integrations.skorch: "
        "class Net(SharpnessAware, NeuralNetClassifier)",
    ),
}


def check_trainer(closure: Callable[[], Any]) -> None:
    """Refuse a closure that is a trainer's own.

    Raises:
        RuntimeError: it is one.
    """
    package = str(getattr(closure, "__module__", "")).partition(".")[0]
    if package in INSTEAD:
        does, write = INSTEAD[package]
        raise RuntimeError(
            f"{does} in every pass: gradients would be clipped before the method has "
            f"combined them, and hooks would run twice. {write}."
        )


def advice() -> str:
    """Return what to write for a trainer that may have called ``step``, if any."""
    return _for_lightning() + _for_transformers()


def _for_lightning() -> str:
    if not any(name in sys.modules for name in PACKAGES):
        return ""
    return (
        " With Lightning's automatic optimization: from flatmin.integrations.lightning "
        "import SharpnessAware, and class Net(SharpnessAware, LightningModule); hooks "
        "that Net overrides call those of super()."
    )


def _for_transformers() -> str:
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "transformers.trainer":
            return (
                " With Transformers: from flatmin.integrations.transformers import "
                "SharpnessAwareTrainer, and SharpnessAwareTrainer(...) in place of "
                "Trainer(...)."
            )
        frame = frame.f_back
    return ""

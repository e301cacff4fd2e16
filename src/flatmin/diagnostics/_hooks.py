"""Functions that torch calls around a module's forward pass."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as every


def any_hooks(model: nn.Module) -> bool:
    """Whether a pass calls hooks: of a module in the model, or of all modules."""
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    own = any(getattr(m, kind) for m in model.modules() for kind in kinds)
    shared: Any = every
    return own or any(getattr(shared, f"_global{kind}") for kind in kinds)

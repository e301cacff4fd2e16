"""Refusals of methods that need more of a trainer than one loss's gradient."""

from __future__ import annotations

from flatmin.core import Traits


def check_answered(traits: Traits, trainer: str) -> None:
    """Refuse a method whose passes need more than the gradient of one loss.

    Args:
        traits: of the method.
        trainer: its name in messages.

    Raises:
        ValueError: they need more.
    """
    needs = {
        "the loss of each example": traits.needs_losses,
        "second derivatives": traits.second_order,
        "the parts of the loss": traits.needs_parts,
    }
    for what, needed in needs.items():
        if needed:
            raise ValueError(
                f"this method needs {what}, and {trainer} has one loss for a batch. "
                "Write a loop with optimizer.probes() (docs/loop.md), or take another "
                "method, such as flatmin.SAM."
            )


def check_waits(name: str) -> None:
    """Refuse optimizers that step in the backward pass, where weights are not ``w``.

    Args:
        name: of the optimizer, as the Trainer's ``optim`` has it.

    Raises:
        ValueError: it is one of them.
    """
    if "lomo" in name or "layerwise" in name:
        raise ValueError(
            f"optim={name!r} steps during the backward pass, where SAM's weights are "
            "not w. Choose one that steps after it, such as optim='adamw_torch'."
        )

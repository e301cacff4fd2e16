"""What stands in the cells of more than one recipe."""

from __future__ import annotations

from flatmin.experiments.config import Experiment

#: Of the batch of 256, which is the default: one of the 8 accelerators of a host.
M = 32


def sam(base: Experiment, rho: float) -> tuple[Experiment, ...]:
    """The one arm of a cell with SAM."""
    return (base.model_copy(update={"method": "sam", "rho": rho}),)


def sgd(base: Experiment, lengths: tuple[int, ...] = (1, 2)) -> tuple[Experiment, ...]:
    """The arms of a cell without SAM: as many epochs, and twice as many."""
    return tuple(
        base.model_copy(update={"method": "sgd", "rho": 0.0, "length": length})
        for length in lengths
    )

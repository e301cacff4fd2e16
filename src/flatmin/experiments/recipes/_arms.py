"""The arms that cells of several recipes have."""

from __future__ import annotations

from flatmin.experiments.config import Experiment

#: Examples of one of a host's 8 accelerators, of the default batch of 256.
M = 32


def sam(base: Experiment, rho: float) -> tuple[Experiment, ...]:
    """Return the one arm of a cell with SAM."""
    return (base.model_copy(update={"method": "sam", "rho": rho}),)


def sgd(base: Experiment, lengths: tuple[int, ...] = (1, 2)) -> tuple[Experiment, ...]:
    """Return the arms of a cell without SAM: as many epochs, and twice as many."""
    return tuple(
        base.model_copy(update={"method": "sgd", "rho": 0.0, "length": length})
        for length in lengths
    )

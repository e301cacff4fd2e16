"""Measure a trained model: sharpness, Hessian, loss landscape.

Nothing here trains, draws, or changes a model.
"""

from flatmin.diagnostics._m_sharpness import m_sharpness
from flatmin.diagnostics._objective import Objective
from flatmin.diagnostics._record import GroupMean, Maximum, Measurement
from flatmin.diagnostics.sharpness import (
    average_sharpness,
    normalised,
    sharpness,
    worst_sharpness,
)

__all__ = [
    "GroupMean",
    "Maximum",
    "Measurement",
    "Objective",
    "average_sharpness",
    "m_sharpness",
    "normalised",
    "sharpness",
    "worst_sharpness",
]

"""Measure a trained model: sharpness, Hessian, loss landscape.

Nothing here trains, draws, or changes a model.
"""

from flatmin.diagnostics import directions, landscape
from flatmin.diagnostics._m_sharpness import m_sharpness
from flatmin.diagnostics._objective import Objective
from flatmin.diagnostics._record import GroupMean, Maximum, Measurement
from flatmin.diagnostics.hessian import (
    Eigenvalues,
    SpectralDensity,
    Spectrum,
    eigenvalues,
    spectral_density,
    spectrum,
    trace,
)
from flatmin.diagnostics.monitor import Monitor
from flatmin.diagnostics.sharpness import (
    average_sharpness,
    normalised,
    sharpness,
    worst_sharpness,
)

__all__ = [
    "Eigenvalues",
    "GroupMean",
    "Maximum",
    "Measurement",
    "Monitor",
    "Objective",
    "SpectralDensity",
    "Spectrum",
    "average_sharpness",
    "directions",
    "eigenvalues",
    "landscape",
    "m_sharpness",
    "normalised",
    "sharpness",
    "spectral_density",
    "spectrum",
    "trace",
    "worst_sharpness",
]

"""Measure a trained model: sharpness, Hessian, loss landscape.

Nothing here trains, draws, or changes a model.
"""

from flatmin.diagnostics import directions, landscape
from flatmin.diagnostics._objective import Objective

__all__ = ["Objective", "directions", "landscape"]

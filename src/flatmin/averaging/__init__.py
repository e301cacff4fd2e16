"""Averages of the weights: they cost no gradient, and work beside every method."""

from flatmin.averaging._average import Average
from flatmin.averaging._kinds import EMA, LAWA, SWA

__all__ = ["EMA", "LAWA", "SWA", "Average"]

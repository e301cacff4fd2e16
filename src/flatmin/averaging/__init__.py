"""Averages of the weights: what costs no gradient, and stacks with every method."""

from flatmin.averaging._average import Average
from flatmin.averaging._kinds import EMA, LAWA, SWA

__all__ = ["EMA", "LAWA", "SWA", "Average"]

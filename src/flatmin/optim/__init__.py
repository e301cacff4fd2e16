"""The optimizer and the engine that runs a method's program around it."""

from flatmin.optim._probe import Probe, Statistics
from flatmin.optim._sam import SAM

__all__ = ["SAM", "Probe", "Statistics"]

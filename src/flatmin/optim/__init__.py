"""The optimizer and the engine that runs a method's program around it."""

from flatmin.optim._options import Options
from flatmin.optim._probe import Probe
from flatmin.optim._sam import SAM
from flatmin.optim._statistics import Statistics

__all__ = ["SAM", "Options", "Probe", "Statistics"]

"""flatmin: sharpness-aware minimization (SAM) for PyTorch."""

from importlib.metadata import version

from flatmin import averaging, schedules
from flatmin.methods import _family
from flatmin.methods._family import *  # noqa: F403
from flatmin.methods._fast import fast
from flatmin.optim import SAM, Probe, Statistics

__version__ = version("flatmin")

__all__ = [
    "SAM",
    "Probe",
    "Statistics",
    "__version__",
    "averaging",
    "fast",
    "schedules",
]
__all__ += _family.__all__

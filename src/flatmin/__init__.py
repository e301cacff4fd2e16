"""flatmin: sharpness-aware minimization (SAM) for PyTorch."""

from importlib.metadata import version

from flatmin.optim import SAM, Probe, Statistics

__version__ = version("flatmin")

__all__ = ["SAM", "Probe", "Statistics", "__version__"]

"""``flatmin sweep``: the search for rho, shared by any number of processes."""

from flatmin.experiments.sweep._sweep import sweep

__all__ = ["sweep"]

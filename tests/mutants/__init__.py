"""Defects by name: the suite is only as good as what it finds."""

from tests.mutants.core import CORE
from tests.mutants.datasets import DATASETS
from tests.mutants.diagnostics import DIAGNOSTICS
from tests.mutants.experiments import EXPERIMENTS
from tests.mutants.loops import LOOPS
from tests.mutants.methods import METHODS
from tests.mutants.mutant import Mutant
from tests.mutants.opened import OPENED
from tests.mutants.optim import OPTIM
from tests.mutants.recipes import RECIPES
from tests.mutants.report import REPORT
from tests.mutants.scope import DISTRIBUTED
from tests.mutants.sweeps import SWEEPS

MUTANTS = [
    *CORE,
    *OPTIM,
    *LOOPS,
    *METHODS,
    *DISTRIBUTED,
    *DIAGNOSTICS,
    *SWEEPS,
    *RECIPES,
    *DATASETS,
    *REPORT,
    *OPENED,
    *EXPERIMENTS,
]

__all__ = ["MUTANTS", "Mutant"]

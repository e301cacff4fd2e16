"""Defects by name: the suite is only as good as what it finds."""

from tests.mutants.averaging import AVERAGING
from tests.mutants.commands import COMMANDS
from tests.mutants.conformance import CONFORMANCE
from tests.mutants.core import CORE
from tests.mutants.datasets import DATASETS
from tests.mutants.experiments import EXPERIMENTS
from tests.mutants.guard import GUARD_DEFECTS
from tests.mutants.loops import LOOPS
from tests.mutants.measures import MEASURE_DEFECTS
from tests.mutants.methods import METHODS
from tests.mutants.mutant import Mutant
from tests.mutants.objective import OBJECTIVE_DEFECTS
from tests.mutants.opened import OPENED
from tests.mutants.optim import OPTIM
from tests.mutants.recipes import RECIPES
from tests.mutants.replay import REPLAY_DEFECTS
from tests.mutants.report import REPORT
from tests.mutants.rewinding import REWINDING
from tests.mutants.scope import DISTRIBUTED
from tests.mutants.sentences import SENTENCES
from tests.mutants.sweeps import SWEEPS

MUTANTS = [
    *AVERAGING,
    *COMMANDS,
    *CORE,
    *OPTIM,
    *REWINDING,
    *LOOPS,
    *GUARD_DEFECTS,
    *REPLAY_DEFECTS,
    *METHODS,
    *DISTRIBUTED,
    *OBJECTIVE_DEFECTS,
    *MEASURE_DEFECTS,
    *SWEEPS,
    *RECIPES,
    *DATASETS,
    *SENTENCES,
    *REPORT,
    *OPENED,
    *EXPERIMENTS,
    *CONFORMANCE,
]

__all__ = ["MUTANTS", "Mutant"]

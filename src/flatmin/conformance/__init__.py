"""A suite that measures any SAM-like optimizer, through an adapter of a few lines.

An `Adapter` says how an optimizer is built and how its documentation writes a training
step. Each of `CHECKS` measures one property and compares the figure with a limit; what
an adapter has no door for does not apply to it. From the command line::

    python -m flatmin.conformance package.module:adapter another.module:adapter

In pytest, a missing door becomes a skip::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
    def test_conformance(check):
        try: check.require(adapter)
        except NotApplicable as missing: pytest.skip(str(missing))

The distributed checks start two processes, which import the adapter's functions by
name; they stay up until `stop_ranks` or the end of the program. They import the main
module as well: guard a script with ``if __name__ == "__main__"``.
"""

from flatmin.conformance._adapter import Adapter, Base, load_adapter
from flatmin.conformance._check import Check, NotApplicable, Result
from flatmin.conformance._ranks import stop_ranks
from flatmin.conformance._suite import CHECKS, run

__all__ = [
    "CHECKS",
    "Adapter",
    "Base",
    "Check",
    "NotApplicable",
    "Result",
    "load_adapter",
    "run",
    "stop_ranks",
]

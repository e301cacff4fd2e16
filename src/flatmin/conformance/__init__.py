"""A suite that measures any SAM-like optimizer, through an adapter of a few lines.

An `Adapter` says how an optimizer is built and how its documentation writes a training
step. Each of `CHECKS` measures one property and compares the figure with a limit. A
check does not apply if the adapter lacks the function it needs. From the command line::

    python -m flatmin.conformance package.module:adapter another.module:adapter

In pytest, a check that does not apply becomes a skip::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
    def test_conformance(check):
        try: check.require(adapter)
        except NotApplicable as missing: pytest.skip(str(missing))

The distributed checks start two processes, which run until `stop_ranks` or the end of
the program. They import the adapter's functions by name, and the main module as well:
guard a script with ``if __name__ == "__main__"``.
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

"""All checks, in the order of their ids.

C stands for a defect in public code or in a public report, T for a property that
follows from the formula. A new check takes the next number of its letter, and an old
number keeps its meaning, so that tables made a year apart can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

from flatmin.conformance import (
    _accumulation,
    _buffers,
    _contract,
    _distributed,
    _family,
    _formula,
    _mixed,
    _modules,
    _objects,
    _passes,
    _precision,
    _state,
)
from flatmin.conformance._adapter import Adapter
from flatmin.conformance._check import Check, Result

#: All checks.
CHECKS: tuple[Check, ...] = (
    _state.resume,
    _state.momentum,
    _state.scheduler,
    _distributed.sharded,
    _distributed.on_their_own,
    _distributed.one_rank_overflows,
    _mixed.positional,
    _mixed.both_unscaled,
    _passes.skipped_in_second,
    _passes.skipped_in_first,
    _contract.closure,
    _contract.returned,
    _passes.zero_gradient,
    _precision.half,
    _precision.brain_float,
    _precision.tiny,
    _passes.infinite_gradient,
    _state.new_group,
    _buffers.interrupted,
    _buffers.cumulative,
    _buffers.any_buffer,
    _buffers.dropout,
    _passes.storage,
    _contract.compiled,
    _contract.order,
    _family.adaptive,
    _family.friendly,
    _family.noise,
    _formula.radius_zero,
    _precision.unusual,
    _modules.attributes,
    _modules.resized,
    _modules.scripted,
    _modules.frozen,
    _distributed.fully_sharded,
    _objects.wrapped,
    _objects.two_identities,
    _accumulation.micro_batches,
    _objects.copied,
    _formula.trajectory,
    _formula.quadratic,
    _family.invariance,
    _formula.reductions,
    _passes.interrupted,
    _state.copies,
)


def run(adapter: Adapter, checks: Sequence[Check] = CHECKS) -> list[Result]:
    """Measure an adapter; one result per check, in their order."""
    return [check.run(adapter) for check in checks]

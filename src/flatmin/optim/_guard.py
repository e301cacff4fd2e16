"""Keeps track of which gradients a step has used, so that none is lost before.

A loop clears gradients before every pass. A gradient of an earlier loop that no step
took, of another SAM over the same module, or of a plain backward pass would be lost
without a word. So a loop refuses to clear what no step has used.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from weakref import WeakSet

import torch
from torch import Tensor, nn

from flatmin.core._shards import any_is
from flatmin.optim._progress import Progress

#: Loops that are finished, until their optimizer steps.
_waiting: WeakSet[Progress] = WeakSet()

#: The parameters that open loops train, by id, of all SAMs of the process.
_in_loops: set[int] = set()

#: Where a gradient keeps the version of its content that a step has used.
_USED = "_sam_used"

#: Where it keeps the version that `SAM.zero_grad` has filled with zeros.
_ZERO = "_sam_zero"


def mark_used(ps: Iterable[Tensor]) -> None:
    """Note that a step has used the gradients of ``ps``, as they are now."""
    _mark(_USED, ps)


def mark_zero(ps: Iterable[Tensor]) -> None:
    """Note that the gradients of ``ps`` are zero, so that no value has to be read."""
    _mark(_ZERO, ps)


def unused(ps: Iterable[Tensor]) -> list[Tensor]:
    """Return those of ``ps`` with a gradient that no step has used."""
    return [
        p
        for p in ps
        if (g := p.grad) is not None and not (_has(_USED, g) or _has(_ZERO, g))
    ]


def wait(progress: Progress, w: Iterable[Tensor]) -> None:
    """Note that the loop is finished, and which gradients it left."""
    progress.ready, progress.offered = True, False
    progress.left = [(p, g) for p in w if (g := p.grad) is not None]
    _waiting.add(progress)


def end_wait(progress: Progress) -> None:
    """Note that the gradients of the last loop are used, or given up."""
    progress.ready = False
    progress.left = []
    _waiting.discard(progress)


def is_cleared(progress: Progress) -> bool:
    """Whether all gradients that the loop left have been cleared."""
    return all(p.grad is None for p, _ in progress.left)


def is_in_place(progress: Progress, mine: set[int] | None = None) -> bool:
    """Whether a gradient that the loop left is still that of its parameter."""
    return any(
        p.grad is g and (mine is None or id(p) in mine) for p, g in progress.left
    )


@contextmanager
def alone_over(w: Iterable[Tensor]) -> Generator[None]:
    """Refuse a loop inside of another one over some of the same parameters.

    Raises:
        RuntimeError: there is another, which may have moved the weights.
    """
    mine = set(map(id, w))
    if not _in_loops.isdisjoint(mine):
        raise RuntimeError(
            "probes() inside of another SAM's loop over the same parameters: these may "
            "be at w + eps. Finish the outer loop and call its step() first."
        )
    _in_loops.update(mine)
    try:
        yield
    finally:
        _in_loops.difference_update(mine)


def check_nothing_lost(progress: Progress, model: nn.Module, w: list[Tensor]) -> None:
    """Refuse to clear gradients that no step has used.

    Args:
        progress: that of the SAM whose loop begins.
        model: the loop will clear the gradients of all its parameters.
        w: the parameters that its optimizer trains.

    Raises:
        RuntimeError: there are such gradients.
    """
    if progress.ready and _was_skipped(progress):
        mark_used(p for p, _ in progress.left)
        end_wait(progress)
    _check_others(progress, model, w)
    if progress.ready and not are_zero([g for p, g in progress.left if p.grad is g]):
        raise RuntimeError(
            "the gradient of the last probes() loop was not used by a step, and this "
            "loop would clear it. Call optimizer.step() after each loop. To accumulate "
            "micro-batches, call optimizer.zero_grad() once and write "
            "optimizer.probes(accumulate=True) for each. To drop the gradient, call "
            "optimizer.zero_grad()."
        )
    end_wait(progress)
    found = [p.grad for p in unused(w) if p.grad is not None]
    if not are_zero(found):
        raise RuntimeError(
            f"{len(found)} of {len(w)} parameters have a gradient that no step has "
            "used, and probes() would clear it. To add to it, write "
            "optimizer.probes(accumulate=True). To drop it, call "
            "optimizer.zero_grad() first."
        )


def check_used_is_cleared(
    progress: Progress, model: nn.Module, w: list[Tensor]
) -> None:
    """Refuse to accumulate onto gradients that a step has used already.

    Raises:
        RuntimeError: the gradients of the last step are still there, or another SAM's
            loop has left some that no step has used.
    """
    _check_others(progress, model, w)
    if any(p.grad is not None and _has(_USED, p.grad) for p in w):
        raise RuntimeError(
            "probes(accumulate=True) would add to the gradient of the last step. Call "
            "optimizer.zero_grad() after each step."
        )


def _check_others(progress: Progress, model: nn.Module, w: list[Tensor]) -> None:
    """Refuse to overwrite what the loop of another SAM left in these parameters."""
    others = [other for other in _waiting if other is not progress]
    if not others:
        return
    mine = {id(p) for p in [*model.parameters(), *w]}
    if any(is_in_place(other, mine) for other in others):
        raise RuntimeError(
            "another SAM has finished a probes() loop over this model and has not "
            "stepped; this loop would overwrite its gradient. Call its step() first."
        )


def _was_skipped(progress: Progress) -> bool:
    """Whether a GradScaler checked the gradients and skipped the step.

    If the scaler was given SAM, it has asked SAM to step. If it was given the base, a
    skipped step leaves a gradient that is not finite; only then the host reads values.
    """
    if progress.offered or not is_in_place(progress):
        return progress.offered
    left = [g for _, g in progress.left]
    return any_is(lambda g: ~g.isfinite().all(), left)


def are_zero(gradients: list[Tensor]) -> bool:
    """Whether all gradients are zero; the host looks at values."""
    return not any_is(torch.any, gradients)


def _mark(name: str, ps: Iterable[Tensor]) -> None:
    for p in ps:
        if (g := p.grad) is not None:
            setattr(g, name, g._version)


def _has(name: str, g: Tensor) -> bool:
    return getattr(g, name, None) == g._version

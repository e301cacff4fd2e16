"""How ``step(closure)`` treats the gradients it finds and the values it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from flatmin.core._shards import is_dtensor
from flatmin.optim._guard import are_zero, unused
from flatmin.optim._probe import Probe
from flatmin.optim._progress import Progress


class EntryGradients:
    """Gradients that are there when ``step(closure)`` is called.

    A closure usually clears them. One that does not would add to them, as with torch's
    own optimizers. SAM could not tell what they are: micro-batches to add, or a first
    pass in the manner of other libraries. So a closure that keeps them is refused. To
    find out, zeros replace them in the first call of the closure. If its first backward
    pass adds to these zeros, the closure has not cleared them.
    """

    def __init__(self, w: Iterable[Tensor]) -> None:
        self._found = [(p, p.grad) for p in unused(w) if p.grad is not None]
        self._zeros: list[Tensor] = []
        self._handles: list[RemovableHandle] = []
        self._kept: dict[int, bool] = {}
        _assign((p, None) for p, _ in self._found)

    def plant(self) -> None:
        """Put zeros in their place, before the first call."""
        for p, g in self._found:
            zeros = torch.zeros_like(g)
            p.grad = zeros
            self._zeros.append(zeros)
            watch = partial(self._look, zeros)
            parameter: Any = p
            handle = parameter.register_post_accumulate_grad_hook(watch)
            self._handles.append(handle)

    def check(self) -> None:
        """Refuse a closure that did not clear them, after the first call.

        Raises:
            RuntimeError: it did not.
        """
        self._unwatch()
        pairs = zip(self._found, self._zeros, strict=True)
        if not are_zero([g for (p, g), zeros in pairs if self._is_kept(p, zeros)]):
            raise RuntimeError(
                "step(closure) found gradients that the closure does not clear. To add "
                "micro-batches, write a loop: for probe in "
                "optimizer.probes(accumulate=True): closure(). Then optimizer.step(). "
                "Otherwise call optimizer.zero_grad() first in the closure, and no "
                "backward() before step(closure)."
            )

    def restore(self) -> None:
        """Put them back, after an error."""
        self._unwatch()
        _assign(self._found)

    def _look(self, zeros: Tensor, p: Tensor) -> None:
        # One version more: added to. Two: cleared in place before.
        kept = p.grad is zeros and zeros._version == 1
        self._kept.setdefault(id(p), kept)

    def _is_kept(self, p: Tensor, zeros: Tensor) -> bool:
        # Sharded parameters are given their gradient without a hook.
        untouched = zeros._version == 0 or is_dtensor(p)
        return self._kept.get(id(p), p.grad is zeros and untouched)

    def _unwatch(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def call_per_pass(
    probes: Iterable[Probe], w: list[Tensor], closure: Callable[[], Any]
) -> Any:
    """Call the closure in place of a loop's body.

    Returns:
        What the closure returned in the first pass at ``w``; a tensor is detached.

    Raises:
        RuntimeError: the closure adds to gradients that were there.
    """
    value, before = None, EntryGradients(w)
    try:
        for k, probe in enumerate(probes):
            if k == 0:
                before.plant()
            with torch.enable_grad():
                given = closure()
            if k == 0:
                before.check()
            _record_loss(probe, given)
            if value is None and not probe.perturbed:
                value = given.detach().clone() if isinstance(given, Tensor) else given
    except BaseException:
        before.restore()
        raise
    return value


def _record_loss(probe: Probe, value: Any) -> None:
    """Set the probe's loss from what a closure returned, if that has one."""
    if isinstance(value, Mapping):
        value = cast("Mapping[str, Any]", value).get("loss")
    elif isinstance(value, tuple | list) and value:
        value = cast("Sequence[Any]", value)[0]
    if isinstance(value, int | float) or (
        isinstance(value, Tensor) and value.numel() == 1
    ):
        probe.loss = value


def call_after_loop(progress: Progress, closure: Callable[[], Any]) -> Any:
    """Call a closure that comes with the step after a finished loop.

    Trainers pass one that does nothing (Lightning's manual optimization).

    Raises:
        RuntimeError: the closure changed the gradients that the loop left.
    """
    before = [(p, g, g._version) for p, g in progress.left]
    with torch.enable_grad():
        value = closure()
    if any(p.grad is not g or g._version != version for p, g, version in before):
        raise RuntimeError(
            "step(closure) after a finished probes() loop: the closure changed the "
            "gradients that the loop had found. Call optimizer.step() without it, or "
            "step(closure) without the loop."
        )
    return value


def _assign(pairs: Iterable[tuple[Tensor, Tensor | None]]) -> None:
    for p, g in pairs:
        p.grad = g

"""Side effects of a forward pass: every pass starts alike, the first one's remain.

A step of SAM runs the model several times, and must leave what a forward pass changes
(BatchNorm's running statistics, caches, counters) and random streams (dropout masks) as
one run would. The official code does the same: both passes get one key and the old
statistics, and the new ones are those of the first pass.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Replay(Protocol):
    """State that a pass changes, and that the next pass must find unchanged."""

    def begin(self, parameters: Sequence[Tensor], trained: Sequence[Tensor]) -> None:
        """Before the first pass: remember where it starts.

        Args:
            parameters: those of the model and of the optimizer.
            trained: those of them that the optimizer moves.
        """
        ...

    def keep(self) -> None:
        """After the first pass: remember where it ended."""
        ...

    def rewind(self) -> None:
        """Before any later pass: back to the start."""
        ...

    def finish(self) -> None:
        """After the last pass: to where the first one ended."""
        ...

    def stop(self) -> None:
        """After a loop without a later pass, which may have broken off in the first."""
        ...


class RandomReplay:
    """The global random streams: torch on every device in use, random, NumPy."""

    def __init__(self) -> None:
        self._devices: list[torch.device] = []
        self._start: tuple[Any, ...] = ()
        self._end: tuple[Any, ...] = ()

    def begin(self, parameters: Sequence[Tensor], trained: Sequence[Tensor]) -> None:
        del trained
        used = {p.device for p in parameters}
        self._devices = [d for d in used if d.type not in ("cpu", "meta")]
        self._start = self.now()

    def keep(self) -> None:
        self._end = self.now()

    def rewind(self) -> None:
        self.set(self._start)

    def finish(self) -> None:
        self.set(self._end)

    def stop(self) -> None:
        pass

    def now(self) -> tuple[Any, ...]:
        """Return the state of the streams."""
        numpy = sys.modules.get("numpy")
        return (
            torch.get_rng_state(),
            [torch.get_device_module(d).get_rng_state(d) for d in self._devices],
            random.getstate(),
            numpy.random.get_state() if numpy else None,
        )

    def set(self, state: tuple[Any, ...]) -> None:
        """Set the streams to an earlier state."""
        cpu, devices, python, numpy = state
        torch.set_rng_state(cpu)
        for d, s in zip(self._devices, devices, strict=True):
            torch.get_device_module(d).set_rng_state(s, d)
        random.setstate(python)
        module = sys.modules.get("numpy")
        # A loop that is still open when Python ends is closed after NumPy is gone.
        if numpy is not None and module is not None:
            module.random.set_state(numpy)

    def seed(self, seed: int) -> None:
        """Seed torch's streams, except those of devices not in use."""
        torch.default_generator.manual_seed(seed)
        for d in self._devices:
            state = torch.Generator(d).manual_seed(seed).get_state()
            torch.get_device_module(d).set_rng_state(state, d)

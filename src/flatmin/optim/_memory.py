"""A method's memory, in the base optimizer's state and so in its checkpoints."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from flatmin.core import Gradients, Memory, Method
from flatmin.core._shards import local, whole_as


class StateMemory(Memory):
    """Reads what earlier steps kept; what this one keeps waits for its end.

    A step that a GradScaler skips has kept nothing. And most optimizers take a state
    that is not empty for their own, so nothing may be in it before they have begun one.
    """

    def __init__(self, base: Optimizer) -> None:
        super().__init__()
        self._base = base
        self._w: list[Tensor] = []

    def begin(self, w: list[Tensor]) -> None:
        """Answer for these parameters."""
        self._w = w

    def recall(self, name: str) -> Gradients | None:
        values: list[Any] = [
            self._base.state.get(p, {}).get(f"sam_{name}") for p in self._w
        ]
        if all(v is None for v in values):
            return None
        return [None if v is None else local([v])[0] for v in values]

    def number(self, name: str) -> float | None:
        return self._base.param_groups[0].get(f"sam_{name}")

    def commit(self) -> None:
        """Write what was kept, after the base's step, for what took part in it."""
        for move in self._pushes:
            _push(local(self._w), move)
        for anchor, share in self._pulls:
            _pull(local(self._w), anchor, share)
        for name, values in self._kept.items():
            for p, v in zip(self._w, values, strict=True):
                if v is not None and p.grad is not None:
                    self._base.state[p][f"sam_{name}"] = whole_as(v, p)
        for name, value in self._noted.items():
            self._base.param_groups[0][f"sam_{name}"] = value
        self.forget()

    def complete(self, content: dict[str, Any], method: Method) -> None:
        """Add NaN to a state dict for all that the method may remember but does not.

        torch.distributed.checkpoint loads those entries alone that it finds in the
        state of the optimizer to be loaded, and wants all of them in the checkpoint.
        """
        for saved, group in zip(
            content["param_groups"], self._base.param_groups, strict=True
        ):
            for name in getattr(method, "notes", ()):
                saved.setdefault(f"sam_{name}", math.nan)
            for at, p in zip(saved["params"], group["params"], strict=True):
                blank = _blank(p, getattr(method, "remembers", ()))
                if blank:
                    # What torch hands out is the state itself.
                    content["state"][at] = {**blank, **content["state"].get(at, {})}

    def clear_blanks(self) -> None:
        """Take out of the state what `complete` had added to what was loaded."""
        for group in self._base.param_groups:
            _drop(group)
        for entry in self._base.state.values():
            _drop(entry)

    def forget(self) -> None:
        """Drop what was kept."""
        self._kept.clear()
        self._noted.clear()
        self._pushes.clear()
        self._pulls.clear()


def _blank(p: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """An entry for each of the names, if the parameter can have one."""
    kept = names if p.requires_grad else ()
    return {f"sam_{name}": torch.full_like(p.detach(), math.nan) for name in kept}


def _drop(entry: dict[str, Any]) -> None:
    """Delete what is ours and is NaN throughout."""
    for name in [name for name in entry if name.startswith("sam_")]:
        value = torch.as_tensor(entry[name])
        if local([value])[0].isnan().all():
            del entry[name]


@torch.no_grad()
def _push(w: list[Tensor], move: Gradients) -> None:
    for p, x in zip(w, move, strict=True):
        if x is not None:
            p.add_(x)


@torch.no_grad()
def _pull(w: list[Tensor], anchor: Gradients, share: float) -> None:
    for p, x in zip(w, anchor, strict=True):
        if x is not None:
            p.copy_(x + share * (p - x))

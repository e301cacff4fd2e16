"""A method's memory, in the base optimizer's state and so in its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from flatmin.core import Gradients, Memory, Method
from flatmin.core import _tensors as ts
from flatmin.core._program import Carried
from flatmin.core._shards import local, whole_as
from flatmin.optim._states import States
from flatmin.optim._tensor_copy import alike


class StateMemory(Memory):
    """Reads what earlier steps kept; writes what this step keeps when it has ended.

    So a step that a GradScaler skips keeps nothing. And most optimizers take a state
    that is not empty for their own, so nothing may be in it before they have filled it.
    """

    def __init__(self, base: Optimizer, states: States) -> None:
        super().__init__()
        self._base = base
        self._states = states
        self._w: list[Tensor] = []
        self._all = Carried()
        self._begun: list[Tensor] = []
        self._part: list[bool] = []
        self._blanked = False
        self._loading: dict[str, Any] = {}

    def begin(self, w: list[Tensor]) -> None:
        """Set the parameters of a loop; drop what one that failed has left."""
        self._w = w
        self._loop = Carried()

    def go_on(self, accumulate: bool) -> None:
        """Forget what earlier loops carry, unless this one adds to their gradients.

        Raises:
            RuntimeError: these carry something for other parameters than train now.
        """
        if not accumulate or all(p.grad is None for p in self._every()):
            self.forget()
            return
        by_parameter = self._all.kept or self._all.pushes or self._all.pull
        if by_parameter and list(map(id, self._w)) != list(map(id, self._begun)):
            raise RuntimeError(
                "parameters were frozen or thawed between the accumulating loops of a "
                "step, and this method remembers what each has found. Change "
                "requires_grad after optimizer.step()."
            )

    def end(self) -> None:
        """Take over what a finished loop carries: its step may have others."""
        self._all.add(self._loop)
        self._loop = Carried()
        self._begun = self._w

    def of_this_step(self, name: str) -> Gradients | None:
        return self._all.kept.get(name)

    def recall(self, name: str) -> Gradients | None:
        values: list[Any] = [
            self._states.get(p, {}).get(f"sam_{name}") for p in self._w
        ]
        if all(v is None for v in values):
            return None
        return [None if v is None else local([v])[0] for v in values]

    def number(self, name: str) -> float | None:
        return self._base.param_groups[0].get(f"sam_{name}")

    def before_base(self) -> None:
        """Note who takes part in the step: the base may clear gradients in it."""
        if self._all.kept:
            self._part = [p.grad is not None for p in self._w]

    def commit(self) -> None:
        """After the base's step: apply pushes and pulls, and write what was kept.

        Only a parameter with a gradient took part in the step and gets an entry, in
        float32 at least: a checkpoint keeps what a step has kept only if both have the
        same type.
        """
        for name in self._all.dropped:
            again = {id(p) for p, _ in self._written(name)}
            for p in self._every():
                if id(p) not in again:
                    self._states.get(p, {}).pop(f"sam_{name}", None)
        for move in self._all.pushes:
            _push(local(self._w), move)
        if self._all.pull is not None:
            _pull(local(self._w), *self._all.pull)
        self._write()
        for name, value in self._all.noted.items():
            self._base.param_groups[0][f"sam_{name}"] = value
        self.forget()

    def _written(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """The parameters that take part in the step, and what is kept of each."""
        rows = zip(self._w, self._all.kept.get(name, ()), self._part, strict=False)
        return [(p, v) for p, v, takes_part in rows if v is not None and takes_part]

    def _write(self) -> None:
        """Write what is kept, into the memory of the entry before if it fits.

        A compiled step is compiled for the tensors that are in the state.
        """
        old: list[Tensor] = []
        new: list[Tensor] = []
        for name in self._all.kept:
            for p, v in self._written(name):
                entry, (x,) = self._states.entry(p), ts.wide([v])
                before = entry.get(f"sam_{name}")
                there = [] if before is None else local([before])
                if alike(there, [x]):
                    old += there
                    new.append(x)
                else:
                    # A copy: a method may keep one tensor under two names.
                    entry[f"sam_{name}"] = whole_as(x.clone(), p)
        if old:
            # What an entry held may become that of another.
            held = {x.data_ptr() for x in old}
            ts.copy_(old, [x.clone() if x.data_ptr() in held else x for x in new])

    def complete(self, content: dict[str, Any], method: Method) -> None:
        """Add NaN to a state dict for all that the method may remember but does not.

        torch.distributed.checkpoint loads only entries that it finds in the state of
        the optimizer to be loaded, and requires all of them in the checkpoint. A base
        with a state of its own takes any entry for this state. So a parameter without
        entries is given NaN only if the base keeps nothing in its group.
        """
        begun = self._base.param_groups[0].get("sam_step", 0) > 0
        pairs = zip(content["param_groups"], self._base.param_groups, strict=True)
        for saved, group in pairs:
            for name in method.traits.notes:
                saved.setdefault(f"sam_{name}", math.nan)
            entries = [content["state"].get(at, {}) for at in saved["params"]]
            empty_too = begun and not any(_has_own(entry) for entry in entries)
            for at, p in zip(saved["params"], group["params"], strict=True):
                blank = _blank(p, method.traits.remembers)
                if blank and (empty_too or content["state"].get(at)):
                    # A new dict, because torch hands out the state itself.
                    content["state"][at] = {**blank, **content["state"].get(at, {})}
        for at, entry in content["state"].items():
            if isinstance(entry, dict):  # Some bases keep numbers of their own here.
                own = _with_own_memory(cast("dict[str, Any]", entry))
                content["state"][at] = own

    def write_blanks(self, method: Method) -> None:
        """Write the same NaN into the state itself, until the next step or load.

        For torch.distributed.checkpoint again: with ``flatten_optimizer_state_dict`` it
        loads the entries of the state after its trial step, not of a state dict.
        """
        self._blanked = True
        for group in self._base.param_groups:
            for name in method.traits.notes:
                group.setdefault(f"sam_{name}", math.nan)
            for p in group["params"]:
                for name, blank in _blank(p, method.traits.remembers).items():
                    self._states.entry(p).setdefault(name, blank)

    def expect(self, content: dict[str, Any]) -> None:
        """Note what the base is about to load."""
        self._loading = content

    def take_over(self) -> None:
        """Make the memory that the base has loaded its own, which steps write to.

        What is wider than its parameter is loaded again, because torch narrows it: of
        parameters in bfloat16, methods keep float32. Wrappers of optimizers have state
        dicts of their own form, which are left as they are.
        """
        for entry in self._states.entries():
            entry.update(_with_own_memory(entry))
        content, self._loading = self._loading, {}
        if not content.keys() >= {"param_groups", "state"}:
            return
        places = [at for group in content["param_groups"] for at in group["params"]]
        ps = [p for group in self._base.param_groups for p in group["params"]]
        if len(places) != len(ps):  # A hook of the base's has made it fit.
            return
        for at, p in zip(places, ps, strict=True):
            # A base over parts of the parameters has put None in place of the others'.
            entry: dict[str, Any] = content["state"].get(at) or {}
            for name, value in entry.items():
                if name.startswith("sam_") and _is_wider(value, p):
                    self._states.entry(p)[name] = value.to(p.device, copy=True)

    def clear_blanks(self) -> None:
        """Remove from the state what `complete` or `write_blanks` put there."""
        self._blanked = False
        for group in self._base.param_groups:
            _drop(group)
        for entry in self._states.entries():
            _drop(entry)

    def clear_trial(self) -> None:
        """Remove what `write_blanks` wrote, if nothing was loaded since."""
        if self._blanked:
            self.clear_blanks()
            for p, entry in list(self._base.state.items()):
                if not entry:
                    del self._base.state[p]

    def _every(self) -> Iterator[Tensor]:
        for group in self._base.param_groups:
            yield from group["params"]

    def forget(self) -> None:
        """Drop what the loops since the last step carry."""
        self._all, self._loop = Carried(), Carried()


def _with_own_memory(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry in which what a method remembers is a copy."""
    return {
        name: value.clone()
        if name.startswith("sam_") and isinstance(value, Tensor)
        else value
        for name, value in entry.items()
    }


def _blank(p: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return a NaN entry for each of the names, if the parameter can have entries."""
    kept = names if p.requires_grad else ()
    (like,) = ts.wide([p.detach()])
    return {f"sam_{name}": torch.full_like(like, math.nan) for name in kept}


def _is_wider(value: Any, p: Tensor) -> bool:
    """Whether a value that was kept has more bits than its parameter's entries."""
    real = isinstance(value, Tensor) and value.is_floating_point()
    return real and value.dtype.itemsize > p.dtype.itemsize


def _has_own(entry: dict[str, Any]) -> bool:
    """Whether the entry holds something that SAM did not write."""
    return not all(name.startswith("sam_") for name in entry)


def _drop(entry: dict[str, Any]) -> None:
    """Delete SAM's values that are NaN throughout."""
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
def _pull(
    w: list[Tensor], anchor: Gradients, shares: Sequence[Tensor | float | None]
) -> None:
    for p, x, share in zip(w, anchor, shares, strict=True):
        if x is not None and share is not None:
            # Exact where the share is 1.
            p.add_((share - 1) * (p - x))

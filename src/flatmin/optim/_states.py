"""Where a base optimizer keeps the state that it saves; a base may wrap others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from torch import Tensor
from torch.optim import Optimizer

#: What is put into a state to see whether it is saved.
_TRACE = "sam_trace"


class States(Mapping[Tensor, dict[str, Any]]):
    """The state of every parameter, as one mapping, whichever optimizer holds it.

    A plain optimizer keeps it in its ``state``. Wrappers (Lookahead, two optimizers in
    one) keep some in the optimizers they hold, and save the one, the other, or both.

    Attributes:
        is_plain: whether the base saves as torch's own optimizers do.
    """

    def __init__(self, base: Optimizer) -> None:
        self._base = base
        self._parts = [base, *held_by(base)]
        self.is_plain = type(base).state_dict is Optimizer.state_dict
        self._saved: list[Optimizer] | None = None

    def __getitem__(self, p: Tensor) -> dict[str, Any]:
        """Return all entries of a parameter; a copy if several optimizers have some."""
        entries = [part.state[p] for part in self._parts if p in part.state]
        if not entries:
            raise KeyError(p)
        if len(entries) == 1:
            return entries[0]
        return {name: value for entry in entries for name, value in entry.items()}

    def __iter__(self) -> Iterator[Tensor]:
        return iter({p: None for part in self._parts for p in part.state})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield every entry itself, not a copy, from all optimizers."""
        for part in self._parts:
            yield from (e for e in part.state.values() if isinstance(e, dict))

    def entry(self, p: Tensor) -> dict[str, Any]:
        """Return the entry of a parameter that will be saved, to write to."""
        return self._holder(p).state[p]

    def saves(self, ps: Iterable[Tensor]) -> bool:
        """Whether what is written to the entry of each of these will be saved."""
        return all(self._holder(p, None) is not None for p in ps)

    def rejoin_groups(self) -> None:
        """Give a wrapper the groups that its optimizers have after loading.

        Loading gives an optimizer new groups. A wrapper with a list of its own keeps
        the old ones, which lack what was loaded. The groups of an optimizer over parts
        of the parameters (ZeroRedundancyOptimizer's) are no others' groups.
        """
        theirs = [group for part in self._parts[1:] for group in part.param_groups]
        ours = self._base.param_groups
        apart = not any(a is b for a in theirs for b in ours)
        if apart and list(map(_members, theirs)) == list(map(_members, ours)):
            ours[:] = theirs

    def _holder(self, p: Tensor, *default: None) -> Any:
        """The optimizer that saves the state of ``p``."""
        if self.is_plain:
            return self._base
        if self._saved is None:
            self._saved = [part for part in self._parts if _is_saved(self._base, part)]
        holders = [part for part in self._saved if _trains(part, p)]
        return next(iter(holders), *default)


def _members(group: dict[str, Any]) -> list[int]:
    return list(map(id, group["params"]))


def held_by(base: Optimizer) -> list[Optimizer]:
    """The optimizers that a wrapper holds, also in a list, and what they hold."""
    found: list[Optimizer] = []
    for value in list(vars(base).values()):
        many = isinstance(value, list | tuple)
        items: list[Any] = [*cast("Sequence[Any]", value)] if many else [value]
        for item in items:
            if isinstance(item, Optimizer) and item is not base:
                found += [item, *held_by(item)]
    return found


def _trains(part: Optimizer, p: Tensor) -> bool:
    return any(p is q for group in part.param_groups for q in group["params"])


def _is_saved(base: Optimizer, part: Optimizer) -> bool:
    """Whether ``base.state_dict()`` holds what is in the state of this part of it."""
    ps = [p for group in part.param_groups for p in group["params"]]
    had = ps[0] in part.state
    try:
        part.state[ps[0]][_TRACE] = 1
        return _holds(base.state_dict(), _TRACE)
    except (KeyError, RuntimeError):
        return False
    finally:
        entry = part.state.get(ps[0], {})
        entry.pop(_TRACE, None)
        if not had and not entry:
            part.state.pop(ps[0], None)


def _holds(content: Any, key: str) -> bool:
    """Whether a tree of dicts and lists has this key somewhere."""
    if isinstance(content, Mapping):
        mapping = cast("Mapping[Any, Any]", content)
        return key in mapping or any(_holds(v, key) for v in mapping.values())
    if isinstance(content, list | tuple):
        return any(_holds(v, key) for v in cast("Sequence[Any]", content))
    return False

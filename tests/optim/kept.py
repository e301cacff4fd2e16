"""Runs SAM and SAM by hand on copies, and compares all that they leave."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin import SAM
from flatmin.optim._holders import MACHINERY
from tests.reference.copies import rewind, step_on_copies, streams

RHO, LR = 0.3, 0.1


def readable(x: Any, depth: int = 0) -> Any:
    """State as plain values that ``==`` compares."""
    if isinstance(x, Tensor | np.ndarray):
        return x.tolist()
    if isinstance(x, torch.Generator):
        return x.get_state().tolist()
    if isinstance(x, nn.Module):
        return state_of(x) if depth else None
    if isinstance(x, dict):
        return [(str(k), readable(v, depth + 1)) for k, v in x.items()]
    if isinstance(x, list | tuple) or type(x).__name__ == "deque":
        return [readable(v, depth + 1) for v in x]
    if isinstance(x, Optimizer):
        return [readable(v, depth + 1) for v in x.state.values()]
    if hasattr(x, "__dict__") and not callable(x):
        return readable(vars(x), depth + 1)
    if hasattr(x, "__slots__"):
        names: Any = getattr(x, "__slots__", ()) or ()
        return [readable(getattr(x, name, None), depth + 1) for name in names]
    return x if isinstance(x, bool | int | float | str | set | None) else None


def attributes_of(model: nn.Module) -> dict[str, Any]:
    """Attributes of all modules."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        for key, value in module.__dict__.items():
            if key not in MACHINERY:
                found[f"{name}.{key}"] = readable(value, 1)
        found[f"{name} class"] = type(module).__name__
    return found


def state_of(model: nn.Module) -> dict[str, Any]:
    """Attributes, buffers and parameters of all modules."""
    found = attributes_of(model)
    for name, t in [*model.named_buffers(), *model.named_parameters()]:
        found[name] = readable(t.to_dense() if t.is_sparse else t)
    return found


def assert_as_on_copies(
    model: nn.Module,
    inputs: Sequence[Tensor],
    trained: Callable[[str], bool] = lambda name: True,
    places: int = 9,
) -> None:
    """A step per input leaves what SAM by hand on copies leaves."""
    twin = copy.deepcopy(model)
    names = [n for n, p in model.named_parameters() if p.requires_grad and trained(n)]
    ps = [model.get_parameter(n) for n in names]
    optimizer = SAM(torch.optim.SGD(ps, lr=LR), model, rho=RHO)
    for x in inputs:

        def loss(m: nn.Module, x: Tensor = x) -> Tensor:
            return m(x).square().mean()

        start = streams()
        for _ in optimizer.probes():
            loss(model).backward()
        optimizer.step()
        end = streams()
        rewind(start)
        step_on_copies(twin, loss, names, rho=RHO, lr=LR)
        assert torch.equal(end[0], torch.get_rng_state())
        assert_close(state_of(model), state_of(twin), places)


def assert_close(mine: dict[str, Any], theirs: dict[str, Any], places: int) -> None:
    """Two states have the same entries, to so many places."""
    assert mine.keys() == theirs.keys()
    for key in mine:
        assert _close(mine[key], theirs[key], places), key


def _close(a: Any, b: Any, places: int) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(
            _close(x, y, places) for x, y in zip(a, b, strict=True)
        )
    if isinstance(a, tuple) and isinstance(b, tuple):
        return _close([*a], [*b], places)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(a[k], b[k], places) for k in a)
    if isinstance(a, float) and isinstance(b, float):
        return bool(
            np.isclose(a, b, rtol=10.0**-places, atol=10.0**-places, equal_nan=True)
        )
    return a == b

"""Take the optimizer out of a file of the authors, and run it alone."""

from __future__ import annotations

import ast
import contextlib
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any

import torch
from comparison import Load
from loops import Run, two_calls
from torch import nn

#: Constants to replace by others, such as a small term in a denominator.
Numbers = dict[float, float]


class Replace(ast.NodeTransformer):
    """Replaces some numbers by others."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if not isinstance(node.value, bool) and node.value in self.numbers:
            return ast.copy_location(ast.Constant(self.numbers[node.value]), node)
        return node


def extract(
    path: Path, *names: str, numbers: Numbers | None = None, **space: Any
) -> Any:
    """Run some definitions of a file by themselves; they may be inner ones.

    Args:
        path: the file.
        names: classes and functions; the result has them as attributes.
        numbers: constants to replace.
        space: what else the code may use.
    """
    tree = ast.parse(path.read_text())
    kinds = ast.ClassDef | ast.FunctionDef
    found: dict[str, ast.stmt] = {}
    for node in ast.walk(tree):
        if isinstance(node, kinds) and node.name in names:
            found.setdefault(node.name, node)
    body = [Replace(numbers or {}).visit(found[name]) for name in names]
    module = ast.fix_missing_locations(ast.Module(body=body, type_ignores=[]))
    scope = {"torch": torch, "nn": nn, "math": math, "defaultdict": defaultdict}
    scope |= {"__name__": path.stem, "print": nothing, **space}
    # Annotations stay strings, as in this file; their names need not exist.
    exec(compile(module, str(path), "exec"), scope)
    return Record(**{name: scope[name] for name in names})


def taken(
    path: str,
    name: str,
    build: Callable[[Any, nn.Module], Any],
    loop: Callable[..., Run] = two_calls,
    *,
    needs: tuple[str, ...] = (),
    numbers: Numbers | None = None,
    **space: Any,
) -> Load:
    """Return a run with the class ``name``, built by ``build(class, model)``."""

    def load(folder: Path) -> Run:
        there = extract(folder / path, *needs, name, numbers=numbers, **space)
        return loop(lambda model: build(getattr(there, name), model))

    return load


def as_is(*_: Any, **__: Any) -> Callable[[Any], Any]:
    """Return a decorator that does nothing, for registries."""
    return lambda thing: thing


def nothing(*_: Any) -> None:
    """Do nothing, in place of functions that handle BatchNorm, and of print."""


#: The names with which two of the repositories register their optimizers.
REGISTRY = {"configurable": as_is, "OPTIMIZER_REGISTRY": Record(register=as_is)}
#: The imports of GSAM and its descendants, for one process without BatchNorm.
PARALLEL = {
    "ReduceOp": torch.distributed.ReduceOp,
    "contextlib": contextlib,
    "enable_running_stats": nothing,
    "disable_running_stats": nothing,
}


def constant(rho: float) -> Record:
    """Return a schedule that keeps the radius constant."""
    return Record(step=lambda: rho)

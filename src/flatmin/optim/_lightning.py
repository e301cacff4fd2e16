"""How Lightning calls ``step``, recognised without importing it.

Its precision plugins give ``step`` a closure that runs the closure of the training and
then, once, the hook ``on_before_optimizer_step`` and clipping. SAM runs these two parts
separately, so that the hook and clipping see the vector that is descended, whatever
the number of passes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def split(
    closure: Callable[[], Any] | None,
) -> tuple[Callable[[], Any] | None, Callable[[], Any]]:
    """Split into the closure of the training and what Lightning does after it."""
    wrapper: Any = getattr(closure, "func", None)
    name = getattr(wrapper, "__name__", "")
    if closure is None or name != "_wrap_closure" or not _is_lightning(wrapper):
        return closure, _nothing
    *who, inner = cast("partial[Any]", closure).args
    return inner, partial(wrapper, *who, _nothing)


def runs_probes(closure: Callable[[], Any]) -> bool:
    """Whether the closure is that of automatic optimization.

    It runs one pass. With `flatmin.integrations.lightning.SharpnessAware` it runs the
    whole loop.
    """
    kind = type(closure)
    return _is_lightning(kind) and kind.__module__.endswith("optimization.automatic")


def _is_lightning(x: Any) -> bool:
    return str(getattr(x, "__module__", "")).startswith(PACKAGES)


def _nothing() -> None:
    pass

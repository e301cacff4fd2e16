"""Steps that a GradScaler makes: which gradients it has checked, and how often."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FrameType
from typing import Any

from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState
from torch.optim import Optimizer

from flatmin.core import Method


def calling_scaler() -> GradScaler | None:
    """Return the enabled GradScaler whose ``step`` called ours, if any.

    It checks gradients before it calls. It does not say so, and cannot be told of other
    gradients, so the stack is the only place to find it.
    """
    frame = _frame_of(GradScaler.step)
    scaler = None if frame is None else frame.f_locals["self"]
    return scaler if scaler is not None and scaler.is_enabled() else None


def given_closure() -> object:
    """Return the closure given to the GradScaler.step that called ours, if any."""
    frame = _frame_of(GradScaler.step)
    args = () if frame is None else frame.f_locals["args"]
    return args[0] if args else None


def _frame_of(caller: Callable[..., Any]) -> FrameType | None:
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code is not caller.__code__:
        frame = frame.f_back
    return frame


def skipped_by_scaler(base: Optimizer) -> bool:
    """Whether a fused base has been told of an overflow, and so has done nothing.

    A GradScaler that steps such a base leaves it to the base to skip the step.
    """
    found = getattr(base, "found_inf", None)
    return isinstance(found, Tensor) and bool(found)


def check_scaling(method: Method, closure: object, unscaled: bool) -> None:
    """Refuse a scaler that has not checked the gradients that count.

    Raises:
        RuntimeError: the closure makes them later, or the method does not know the
            loss scale.
    """
    unaware = not unscaled and method.traits.needs_unscaled
    if not (closure is not None or unaware) or calling_scaler() is None:
        return
    if closure is not None:
        raise RuntimeError(
            "GradScaler.step(optimizer, closure) looks for overflows before the "
            "closure makes the gradients that count. Write: for probe in "
            "optimizer.probes(): closure(). Then scaler.step(optimizer)."
        )
    raise RuntimeError(
        "this method needs gradients without the loss scale. Write "
        "optimizer.probes(scaler=scaler)."
    )


def check_not_unscaling() -> None:
    """Refuse ``scaler.unscale_`` in the body of a loop.

    Raises:
        RuntimeError: it is calling. The scaler would take the gradients of all passes
            for unscaled, and let the optimizer step along scaled ones.
    """
    if _frame_of(GradScaler.unscale_) is not None:
        raise RuntimeError(
            "scaler.unscale_(optimizer) inside a probes() loop would unscale the "
            "gradients of one pass. Call it once, after the loop."
        )


def check_unscaled_once(stepped: Optimizer, other: Optimizer) -> None:
    """Refuse to step through one object what was unscaled through the other.

    A scaler keeps one record per object and would divide by its scale a second time.

    Args:
        stepped: the object that the scaler was asked to step.
        other: the other of SAM and its base.

    Raises:
        RuntimeError: the scaler has unscaled the other one.
    """
    scaler: Any = calling_scaler()
    if scaler is None:
        return
    stage = scaler._per_optimizer_states[id(other)]["stage"]
    if stage is OptState.UNSCALED:
        raise RuntimeError(
            f"scaler.unscale_ was given the {type(other).__name__} object and "
            f"scaler.step the {type(stepped).__name__} object, which share their "
            "gradients: these would be unscaled twice. Give both the SAM object: "
            "scaler.unscale_(optimizer), then scaler.step(optimizer)."
        )

"""What FSDP2 keeps beside the parameters: whole weights, and their gradients.

A module knows its shards' states by private names alone, which are read here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

from torch import nn


def fsdp_class(name: str) -> Any:
    """Return a class of ``torch.distributed.fsdp``; None if nothing has loaded it.

    Importing it takes half a second. A model that has it has loaded it.
    """
    return getattr(sys.modules.get("torch.distributed.fsdp"), name, None)


def reshard(model: nn.Module) -> None:
    """Let go of whole weights that FSDP2 keeps after a forward pass without a backward.

    They would not follow their shards, and they hide these from ``model.parameters()``.
    """
    for module in _sharded_modules(model):
        module.reshard()


def has_unreduced(model: nn.Module) -> bool:
    """Whether FSDP2 keeps gradients that it has not yet reduced, outside of ``.grad``.

    It does after a backward pass with ``set_requires_gradient_sync(False)``, or with
    ``set_requires_all_reduce(False)``.
    """
    return any(
        group._partial_reduce_output is not None
        or any(_whole_gradient(p) is not None for p in group.fsdp_params)
        for group in _groups(model)
    )


def drop_unreduced(model: nn.Module) -> None:
    """Drop the gradients that FSDP2 has not yet reduced."""
    for group in _groups(model):
        group._partial_reduce_output = None
        for p in group.fsdp_params:
            if (whole := getattr(p, "_unsharded_param", None)) is not None:
                whole.grad = None
            # Older versions keep it apart; newer ones only read the one above.
            with suppress(AttributeError):
                p.unsharded_accumulated_grad = None


def _whole_gradient(p: Any) -> Any:
    whole = getattr(p, "_unsharded_param", None)
    kept = p.unsharded_accumulated_grad
    return kept if kept is not None or whole is None else whole.grad


def _groups(model: nn.Module) -> Iterator[Any]:
    """Yield the groups of parameters that FSDP2 gathers and reduces together."""
    for module in _sharded_modules(model):
        state = module._get_fsdp_state()
        # Of older versions, a module has one group at most.
        groups = getattr(state, "_fsdp_param_groups", None)
        one = [] if groups is not None else [state._fsdp_param_group]
        yield from (group for group in groups or one if group is not None)


def _sharded_modules(model: nn.Module) -> Iterator[Any]:
    kind = fsdp_class("FSDPModule")
    if kind is not None:
        yield from (cast("Any", m) for m in model.modules() if isinstance(m, kind))

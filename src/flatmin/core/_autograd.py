"""Where torch's autograd finds wrong derivatives without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import (
    _WeightNorm,  # pyright: ignore[reportPrivateUsage]
)
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode


def check_checkpoints(loss: Tensor) -> None:
    """Refuse a graph from which ``torch.autograd.grad`` would miss parameters.

    A reentrant checkpoint adds to the gradients of the parameters within by a backward
    pass of its own; ``grad`` takes them for unused.

    Raises:
        RuntimeError: a part of the model is in such a checkpoint.
    """
    nodes: list[Any] = [loss.grad_fn]
    seen = set(nodes)
    for node in nodes:
        if node is None:
            continue
        if node.name() == "CheckpointFunctionBackward":
            raise RuntimeError(
                "torch.autograd.grad finds no gradient of parameters inside of a "
                "checkpoint with use_reentrant=True. Write torch.utils.checkpoint."
                "checkpoint(..., use_reentrant=False)."
            )
        new = {following for following, _ in node.next_functions} - seen
        seen |= new
        nodes += new


def has_weight_norm(model: nn.Module) -> bool:
    """Whether a layer has torch's weight_norm, the parametrization or the older."""
    return any(
        isinstance(part, _WeightNorm | WeightNorm)
        for module in model.modules()
        for part in _parts(module)
    )


def _parts(module: nn.Module) -> Iterator[object]:
    yield module
    yield from cast("Any", module)._forward_pre_hooks.values()


class weight_norm_by_hand(TorchFunctionMode):
    """Within, ``g v / |v|`` is made of operations that have right second derivatives.

    Those of torch's own operation take the norms of its first derivative as constants,
    and it has none in forward mode.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        if func is torch._weight_norm:  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            return _normed(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _normed(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))

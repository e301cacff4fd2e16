"""Weight normalisation with second derivatives."""

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

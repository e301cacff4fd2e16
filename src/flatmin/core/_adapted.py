"""Layers with low-rank adapters (LoRA), and which of them are a ``W + s B A``.

They are recognised by the attributes that peft gives them
(`peft.tuners.lora.layer.LoraLayer`), so that nothing of peft is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.core import _tensors as ts
from flatmin.core._shards import is_dtensor

#: The attributes that every LoRA layer has.
_OWN = ("lora_A", "lora_B", "scaling", "active_adapters", "get_base_layer")

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Adapted:
    """A linear layer whose weight is ``W' = W + s B A``.

    Attributes:
        weight: W, as the layer holds it.
        factors: s, B and A of every active adapter; the products are added.
        turned: whether the layer holds the transpose of W (``fan_in_fan_out``).
    """

    weight: Tensor
    factors: list[tuple[float, Tensor, Tensor]]
    turned: bool

    @torch.no_grad()
    def row_norms(self) -> Tensor:
        """``||W'_i||`` of every output i, in float32 at least."""
        [w] = ts.wide([self.weight.T if self.turned else self.weight])
        with torch.autocast(w.device.type, enabled=False):
            for s, b, a in self.factors:
                w = w + s * (b.to(w.dtype) @ a.to(w.dtype))
        return w.square().sum(dim=1).sqrt()

    def tensors(self) -> list[Tensor]:
        """Return the adapters' tensors, then the weight."""
        return [*(x for _, b, a in self.factors for x in (a, b)), self.weight]


def adapted(model: nn.Module, w: Sequence[Tensor]) -> list[Adapted]:
    """Return the LoRA layers of the model that hold any of these parameters.

    Args:
        model: holds the layers; one without an active adapter is skipped.
        w: the trained parameters.

    Raises:
        ValueError: there is no such layer; or the weight of a layer is not
            ``W + s B A``, cannot be moved, or is shared with another layer.
    """
    ours = {id(p) for p in w}
    every = [_read(name, layer, active) for name, layer, active in _active(model)]
    found = [x for x in every if not ours.isdisjoint(map(id, x.tensors()))]
    if not found:
        raise ValueError(
            "flat_lora needs LoRA layers that the base trains, and model "
            f"{type(model).__name__} has none. Add them first: model = "
            "peft.get_peft_model(model, peft.LoraConfig(...)); or use flatmin.SAM."
        )
    if len({id(x.weight) for x in found}) < len(found):
        raise ValueError(
            "flat_lora needs a weight of its own for every LoRA layer, and two of them "
            "share one (tied weights). Leave one out of LoraConfig(target_modules=...)."
        )
    return found


def _active(model: Any) -> Iterator[tuple[str, Any, list[str]]]:
    """Yield ``(name, layer, active adapters)`` of LoRA layers with active adapters."""
    for name, layer in model.named_modules():
        if all(hasattr(layer, attribute) for attribute in _OWN):
            here = {*layer.lora_A, *getattr(layer, "lora_embedding_A", ())}
            active = [a for a in layer.active_adapters if a in here]
            if active:
                yield name, layer, active


def _read(name: str, layer: Any, active: list[str]) -> Adapted:
    """Read W, s, B and A from a layer, or raise a ValueError that says why not."""
    why = _other_product(layer, active) or _other_weight(layer, active)
    if why:
        raise ValueError(f"flat_lora cannot perturb the LoRA layer {name!r}: {why}")
    factors = [
        (float(layer.scaling[a]), layer.lora_B[a].weight, layer.lora_A[a].weight)
        for a in active
    ]
    return Adapted(layer.get_base_layer().weight, factors, _turned(layer))


def _other_product(layer: Any, active: list[str]) -> str:
    """Why the layer does not multiply with ``W + s B A`` now; empty if it does."""
    if getattr(layer, "disable_adapters", False):
        return "its adapters are disabled. Write model.enable_adapter_layers()."
    if getattr(layer, "merged", False):
        return (
            "its adapters are merged into its weight, where they do not train. Write "
            "model.unmerge_adapter()."
        )
    variants = getattr(layer, "lora_variant", {})
    dora = getattr(layer, "use_dora", {})
    odd = [a for a in active if a in variants or dora.get(a)]
    if odd:
        kind = type(variants[odd[0]]).__name__ if odd[0] in variants else "DoRA"
        return (
            f"adapter {odd[0]!r} is a variant of LoRA ({kind}), whose weight is not "
            "W + s B A. Use a plain one, such as LoraConfig(use_dora=False)."
        )
    return ""


def _other_weight(layer: Any, active: list[str]) -> str:
    """Why noise cannot be added to the layer's weight; empty if it can."""
    base = layer.get_base_layer()
    weight: Any = getattr(base, "weight", None)
    if is_dtensor(weight):
        return (
            "its weight is sharded (DTensor), and the noise is relative to whole rows. "
            "Use DistributedDataParallel, or flatmin.SAM."
        )
    plain = type(weight) in (Tensor, nn.Parameter) and weight.dtype in _FLOATS
    if not plain or weight.is_meta:
        kind = type(weight).__name__
        of = f"{kind} of {weight.dtype}" if isinstance(weight, Tensor) else kind
        return (
            f"the weight of its {type(base).__name__} is a {of}: quantised, offloaded "
            "or in several parts. Load the base model without quantization_config and "
            "device_map, in bfloat16 say, and adapt linear layers."
        )
    if not _is_linear(layer, active, weight):
        return (
            f"its {type(base).__name__} is no linear layer. Name linear layers alone "
            "in LoraConfig(target_modules=...)."
        )
    return ""


def _is_linear(layer: Any, active: list[str], weight: Tensor) -> bool:
    """Whether each ``B A`` is a matrix of the size of W."""
    if weight.dim() != 2 or hasattr(layer, "parameter_name"):
        return False
    size = weight.T.shape if _turned(layer) else weight.shape
    return all(_size(layer, adapter) == size for adapter in active)


def _size(layer: Any, adapter: str) -> tuple[int, int] | None:
    """Return the shape of ``B A``; None if B or A is missing or no matrix."""
    parts = (layer.lora_B, layer.lora_A)
    pair: list[Any] = [
        getattr(part[adapter], "weight", None) for part in parts if adapter in part
    ]
    if len(pair) < 2 or any(x is None or x.dim() != 2 for x in pair):
        return None
    return pair[0].shape[0], pair[1].shape[1]


def _turned(layer: Any) -> bool:
    return bool(getattr(layer, "fan_in_fan_out", False))

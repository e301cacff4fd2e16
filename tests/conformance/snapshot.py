"""What a forward pass may change in a model, apart from trained weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Kept(NamedTuple):
    module: nn.Module
    tensors: dict[str, tuple[Tensor, Tensor]]  # the object and a copy of its values
    numbers: dict[str, Any]


class Snapshot:
    """Broken SAMs change one of its methods."""

    def __init__(self, model: nn.Module) -> None:
        self.kept = [
            Kept(
                module,
                {name: (t, t.clone()) for name, t in self.tensors(module).items()},
                self.numbers(module),
            )
            for module in self.modules(model)
        ]

    def modules(self, model: nn.Module) -> list[nn.Module]:
        return list(model.modules())

    def tensors(self, module: nn.Module) -> dict[str, Tensor]:
        frozen = {
            name: p.detach()
            for name, p in module.named_parameters(recurse=False)
            if not p.requires_grad
        }
        return {**dict(module.named_buffers(recurse=False)), **frozen}

    def numbers(self, module: nn.Module) -> dict[str, Any]:
        if type(module).__module__.startswith("torch."):
            return {}
        kinds = (bool, int, float)
        return {k: v for k, v in vars(module).items() if isinstance(v, kinds)}

    @torch.no_grad()
    def put_back(self) -> None:
        for module, tensors, numbers in self.kept:
            for name, (tensor, values) in tensors.items():
                self.put_values_back(tensor, values)
                if name in dict(module.named_buffers(recurse=False)):
                    setattr(module, name, tensor)
            vars(module).update(numbers)

    def put_values_back(self, tensor: Tensor, values: Tensor) -> None:
        tensor.resize_(values.shape).copy_(values)

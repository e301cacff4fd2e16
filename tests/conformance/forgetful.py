"""SAMs that do not know all of what a forward pass changes in a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.conformance.hand import Hand
from tests.conformance.snapshot import Snapshot


class NoModules(Snapshot):
    def modules(self, model: nn.Module) -> list[nn.Module]:
        return []


class UpdatesTwice(Hand):
    snapshot = NoModules


class BatchNormAlone(Snapshot):
    def modules(self, model: nn.Module) -> list[nn.Module]:
        return [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]


class KnowsBatchNorm(Hand):
    snapshot = BatchNormAlone


class TensorsAlone(Snapshot):
    def numbers(self, module: nn.Module) -> dict[str, Any]:
        return {}


class KnowsTensors(Hand):
    snapshot = TensorsAlone


class FloatsAlone(Snapshot):
    def numbers(self, module: nn.Module) -> dict[str, Any]:
        found = super().numbers(module)
        return {name: v for name, v in found.items() if isinstance(v, float)}


class KnowsFloats(Hand):
    snapshot = FloatsAlone


class ValuesAlone(Snapshot):
    def put_values_back(self, tensor: Tensor, values: Tensor) -> None:
        tensor.copy_(values)


class KeepsSizes(Hand):
    snapshot = ValuesAlone


class PythonAlone(Snapshot):
    def modules(self, model: nn.Module) -> list[nn.Module]:
        scripted = torch.jit.ScriptModule
        return [m for m in model.modules() if not isinstance(m, scripted)]


class KnowsPython(Hand):
    snapshot = PythonAlone


class BuffersAlone(Snapshot):
    def tensors(self, module: nn.Module) -> dict[str, Tensor]:
        return dict(module.named_buffers(recurse=False))


class KnowsBuffers(Hand):
    snapshot = BuffersAlone

"""The step itself: the closed form, radius zero, and variants that are SAM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin.conformance import _problems as on
from flatmin.conformance._adapter import Adapter
from flatmin.conformance._check import (
    AtMost,
    Measured,
    check,
    need_sams_formula,
    needed,
    worst,
)
from flatmin.conformance._state import tensors_in

Trainer = Callable[[nn.Module, list[tuple[Tensor, Tensor]]], Any]


class Quadratic(nn.Module):
    """``w'Aw / 2``, whose gradient at ``v`` is ``A v``."""

    def __init__(self) -> None:
        super().__init__()
        root = torch.randn(5, 5, dtype=torch.float64)
        self.a = root @ root.T / 5 + torch.eye(5, dtype=torch.float64)
        self.w = nn.Parameter(torch.randn(5, dtype=torch.float64))

    def forward(self) -> Tensor:
        """The loss."""
        return self.w @ self.a @ self.w / 2


@check(
    "T2",
    "one step on a quadratic is w - lr A(w + rho g/||g||)",
    "greatest difference of a weight from the closed form",
    AtMost(1e-9),
)
def quadratic(adapter: Adapter) -> Measured:
    """Compare with the closed form, in float64."""
    need_sams_formula(adapter)
    model = Quadratic()
    w = model.w.detach().clone()
    g = model.a @ w
    expected = w - 0.1 * model.a @ (w + on.RHO * g / g.norm())
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    adapter.step(optimizer, model, model)
    return Measured(on.distance([model.w.detach()], [expected]))


def noisy() -> nn.Sequential:
    """Build a network with BatchNorm and dropout, which a second pass could disturb."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
    )


@check(
    "C29",
    "rho = 0 is the base optimizer, with BatchNorm and dropout too",
    "greatest difference of a weight or buffer after 5 steps",
    AtMost(0),
)
def radius_zero(adapter: Adapter) -> Measured:
    """Compare weights and buffers of two runs with the same start."""
    mine, _ = _trained(lambda model, data: _sam(adapter, model, data))
    theirs, _ = _trained(_plain)
    return Measured(on.distance(_values(mine), _values(theirs)))


@check(
    "T1",
    "rho = 0 leaves random stream and base state as the base optimizer does",
    "which of weights, buffers, momentum, random stream differ after 5 steps; a count",
    AtMost(0),
)
def trajectory(adapter: Adapter) -> Measured:
    """Compare all that checkpoints of the two runs would hold."""
    mine, (saved, stream) = _trained(lambda model, data: _sam(adapter, model, data))
    theirs, (base, plain_stream) = _trained(_plain)
    found = [t for key, t in tensors_in(saved) if "momentum" in key]
    momentum = [t for key, t in tensors_in(base) if "momentum" in key]
    same = {
        "weights": _equal(on.weights(mine), on.weights(theirs)),
        "buffers": _equal(list(mine.buffers()), list(theirs.buffers())),
        "momentum": _equal(found, momentum),
        "random stream": torch.equal(stream, plain_stream),
    }
    differ = [name for name, equal in same.items() if not equal]
    return Measured(len(differ), ", ".join(differ))


def _trained(run: Trainer) -> tuple[nn.Module, tuple[Any, Tensor]]:
    model = noisy()
    torch.manual_seed(3)
    saved = run(model, on.batches(5, dtype=torch.float32))
    return model, (saved, torch.get_rng_state())


def _sam(adapter: Adapter, model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> Any:
    optimizer = adapter.build(on.MOMENTUM, model, 0.0)
    on.train(adapter, optimizer, model, data)
    return adapter.save(optimizer)


def _plain(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> Any:
    optimizer: Optimizer = on.MOMENTUM.build(model)
    for batch in data:
        on.backward(model, on.classify(model, batch))
        optimizer.step()
    return optimizer.state_dict()


def _values(model: nn.Module) -> list[Tensor]:
    return [*on.weights(model), *(b.detach().clone() for b in model.buffers())]


def _equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


@check(
    "T4",
    "variants at the setting that makes them SAM are SAM",
    "greatest difference of a weight from a straight-line SAM after 10 steps",
    AtMost(1e-6),
)
def reductions(adapter: Adapter) -> Measured:
    """Compare each variant with the same straight-line SAM."""
    settings = needed(adapter.reductions or None, "variants with such a setting")
    data = on.batches(10)
    twin = on.network()
    expected = on.reference(
        adapter, twin, on.MOMENTUM, [on.classify(twin, d) for d in data]
    )
    found: list[float] = []
    for setting in settings:
        model = on.network()
        optimizer = setting.build(on.MOMENTUM, model, on.RHO)
        on.train(setting, optimizer, model, data)
        found.append(on.distance(on.weights(model), expected))
    return Measured(worst(found), ", ".join(setting.name for setting in settings))

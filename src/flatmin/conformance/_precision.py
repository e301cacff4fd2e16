"""Gradients at the limits of number formats, and of unusual tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flatmin.conformance import _problems as on
from flatmin.conformance._adapter import Adapter
from flatmin.conformance._check import (
    AtMost,
    Measured,
    check,
    need_sams_formula,
    refusal,
    worst,
)

# A bfloat16 number that is no power of two: products with it round both ways.
RADIUS = 0.703125
HALF = AtMost(0.02)


class Slope(nn.Module):
    """``<w, g>`` at ``w = 0``: the gradient is ``g``, and ``w + eps`` is ``eps``."""

    def __init__(self, g: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros_like(g))
        self.g = g

    def forward(self) -> Tensor:
        """The loss."""
        return (self.w * self.g).sum()


def _realised(adapter: Adapter, g: Tensor) -> float:
    """Measure the length of the perturbation along ``g``, in rho."""
    need_sams_formula(adapter)
    model = Slope(g)
    optimizer = adapter.build(on.RESTING, model, RADIUS)
    eps = on.eps_of_step(adapter, optimizer, model, model)
    return on.length(eps) / RADIUS


@check(
    "C14",
    "float16 weights: gradients of 0, 1e-6 and 1e4 give a perturbation of length rho",
    "greatest error of the length, in rho (0 for the zero gradient)",
    HALF,
)
def half(adapter: Adapter) -> Measured:
    """Use gradients whose squares, for the last two, are beyond float16."""
    found: dict[float, float] = {}
    for size in (0.0, 1e-6, 1e4):
        g = torch.full((16,), size, dtype=torch.float16)
        found[size] = _realised(adapter, g)
    off = worst([abs(length - (size > 0)) for size, length in found.items()])
    note = ", ".join(f"{size:g}: {length:.3g} rho" for size, length in found.items())
    return Measured(off, "" if HALF.keeps(off) else note)


@check(
    "C15",
    "bfloat16 weights: the gradient's norm is not rounded to bfloat16",
    "error of the perturbation's length, in rho",
    AtMost(3e-3),
)
def brain_float(adapter: Adapter) -> Measured:
    """Use a gradient whose norm is half way between two bfloat16 numbers."""
    most = torch.randn(4095, dtype=torch.float64)
    most = (most * (0.9**0.5 / most.norm())).bfloat16()
    norm = 1 + 2.0**-8
    rest = (norm**2 - most.double().square().sum()).sqrt()
    g = torch.cat([most, rest.bfloat16().reshape(1)])
    return Measured(abs(_realised(adapter, g) - 1))


@check(
    "C16",
    "float32 weights: gradients of 1e-20 give a perturbation of length rho",
    "error of the perturbation's length, in rho",
    AtMost(0.01),
)
def tiny(adapter: Adapter) -> Measured:
    """Use a gradient whose norm is far below the constants usually added to norms."""
    return Measured(abs(_realised(adapter, torch.full((16,), 1e-20)) - 1))


class Words(nn.Module):
    """An embedding of ten words; the loss uses three of them."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(10, 4, sparse=sparse, dtype=torch.float64)

    def forward(self) -> Tensor:
        """The loss."""
        return torch.tanh(self.table(torch.tensor([1, 5, 5, 7])).sum(1)).square().mean()


class Phases(nn.Module):
    """A least-squares problem with complex weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a = torch.randn(6, 4, dtype=torch.complex128)
        self.b = torch.randn(6, dtype=torch.complex128)
        self.w = nn.Parameter(torch.randn(4, dtype=torch.complex128))

    def forward(self) -> Tensor:
        """The loss."""
        return (self.a @ self.w - self.b).abs().square().sum() / 6


@check(
    "C30",
    "sparse gradients and complex weights: right, or refused",
    "greatest difference of a weight from a straight-line SAM after 3 steps",
    AtMost(1e-6),
)
def unusual(adapter: Adapter) -> Measured:
    """Accept an error in a step that leaves the weights as they were."""
    kinds = {
        "sparse": (Words(sparse=True), Words(sparse=False)),
        "complex": (Phases(), Phases()),
    }
    found: list[float] = []
    notes: list[str] = []
    for kind, (model, twin) in kinds.items():
        expected = on.reference(adapter, twin, on.PLAIN, [twin] * 3)
        note = _refused(adapter, model)
        found.append(0.0 if note else on.distance(on.weights(model), expected))
        notes += [f"{kind} {note}"] if note else []
    return Measured(worst(found), ", ".join(notes))


def _refused(adapter: Adapter, model: nn.Module) -> str:
    """Take three steps; return the note if one of them is refused."""
    before = on.weights(model)

    def steps() -> None:
        nonlocal before
        optimizer = adapter.build(on.PLAIN, model, on.RHO)
        for _ in range(3):
            before = on.weights(model)
            adapter.step(optimizer, model, model)

    return refusal(steps, lambda: on.distance(on.weights(model), before))

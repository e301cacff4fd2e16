"""Small problems, a record of their passes, and SAM in a straight line of code."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from flatmin.conformance._adapter import Adapter, Base, Loss
from flatmin.conformance._check import Wrong

RHO = 0.1
PLAIN = Base(SGD, {"lr": 0.1})
MOMENTUM = Base(SGD, {"lr": 0.1, "momentum": 0.9})
RESTING = Base(SGD, {"lr": 0.0})

Vector = list[Tensor]


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Build a network of five features and three classes, without state or chance."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def batches(
    steps: int, n: int = 12, dtype: torch.dtype = torch.float64
) -> list[tuple[Tensor, Tensor]]:
    """Return one batch per step, always the same."""
    draw = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(n, 5, generator=draw, dtype=torch.float64).to(dtype),
            torch.randint(3, (n,), generator=draw),
        )
        for _ in range(steps)
    ]


def classify(model: nn.Module, data: tuple[Tensor, Tensor]) -> Loss:
    """Return the loss of a batch as a function, as adapters call it."""
    x, y = data
    return lambda: F.cross_entropy(model(x), y)


class Passes:
    """A loss that records the model's weights at each of its calls."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self.at: list[Vector] = []
        self._model = model
        self._loss = loss

    def __call__(self) -> Tensor:
        self.at.append(weights(self._model))
        return self._loss()

    def eps(self) -> Vector:
        """Return the weights at the second call minus those at the first."""
        if len(self.at) < 2:
            raise Wrong(f"a step called loss() {len(self.at)} times; SAM needs two")
        return [b - a for a, b in zip(self.at[0], self.at[1], strict=True)]


def weights(model: nn.Module) -> Vector:
    """Return copies of the parameters."""
    return [p.detach().clone() for p in model.parameters()]


def length(vector: Vector) -> float:
    """Return the 2-norm, in double precision."""
    return sum(v.abs().double().square().sum().item() for v in vector) ** 0.5


def distance(a: Vector, b: Vector) -> float:
    """Return the greatest difference of two entries; NaN if an entry is NaN."""
    parts = [(x - y).abs().double().flatten() for x, y in zip(a, b, strict=True)]
    return torch.cat(parts).max().item()


def train(
    adapter: Adapter,
    optimizer: Any,
    model: nn.Module,
    data: list[tuple[Tensor, Tensor]],
) -> None:
    """Take the documented steps, one per batch."""
    for batch in data:
        adapter.step(optimizer, model, classify(model, batch))


def eps_of_step(adapter: Adapter, optimizer: Any, model: nn.Module, loss: Loss):
    """Take a documented step; return how far its second pass was from its first."""
    passes = Passes(model, loss)
    adapter.step(optimizer, model, passes)
    return passes.eps()


def sam_step(
    adapter: Adapter, optimizer: Optimizer, model: nn.Module, loss: Loss
) -> None:
    """Take a step of SAM without any precautions, to compare adapters with."""
    ps = list(model.parameters())
    w = weights(model)
    backward(model, loss)
    climb(adapter, [(p, p) for p in ps])
    backward(model, loss)
    with torch.no_grad():
        for p, old in zip(ps, w, strict=True):
            p.copy_(old)
    optimizer.step()


def rewound_step(
    adapter: Adapter,
    optimizer: Optimizer,
    model: nn.Module,
    loss_of: Callable[[nn.Module], Tensor],
) -> None:
    """Take a step of SAM whose second pass runs in a copy from before the first.

    Both passes start alike, whatever a forward pass changes in the model, and the
    model's state ends as after the first pass.
    """
    model.zero_grad()
    twin = copy.deepcopy(model)
    loss_of(model).backward()
    pairs = list(zip(model.parameters(), twin.parameters(), strict=True))
    climb(adapter, pairs)
    loss_of(twin).backward()
    for p, there in pairs:
        p.grad = there.grad
    optimizer.step()


@torch.no_grad()
def climb(adapter: Adapter, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Move the second of each pair by the perturbation of the first."""
    held = [(p, p.grad, there) for p, there in pairs if p.grad is not None]
    w, g = [p for p, _, _ in held], [grad for _, grad, _ in held]
    eps = adapter.perturbation(w, g, RHO)
    for (_, _, there), e in zip(held, eps, strict=True):
        there.add_(e)


def reference(
    adapter: Adapter, model: nn.Module, base: Base, losses: list[Loss]
) -> Vector:
    """Return the weights after one `sam_step` per loss."""
    optimizer = base.build(model)
    for loss in losses:
        sam_step(adapter, optimizer, model, loss)
    return weights(model)


def backward(model: nn.Module, loss: Loss) -> Tensor:
    """Clear the gradients of ``model``, compute them anew, and return the loss."""
    model.zero_grad()
    value = loss()
    value.backward()
    return value.detach()


def closure_of(model: nn.Module, loss: Loss) -> Callable[[], Tensor]:
    """Return the closure that torch's documentation shows."""
    return lambda: backward(model, loss)

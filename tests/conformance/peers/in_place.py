"""The other pattern: ascent_step adds eps in place, descent_step subtracts it.

Written from the formula ``eps = rho T^2 g / ||T g||``: T is 1 for SAM; for ASAM it is
``|w| + eta`` on tensors with "weight" in their names.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin.conformance import Adapter, Base


class InPlace:
    def __init__(
        self, optimizer: Optimizer, model: nn.Module, rho: float, eta: float | None
    ) -> None:
        self.optimizer, self.model, self.rho, self.eta = optimizer, model, rho, eta
        self.state: dict[Tensor, Tensor] = {}

    def stretch(self, name: str, p: Tensor) -> Tensor:
        if self.eta is None or "weight" not in name:
            return torch.ones_like(p)
        return p.detach().abs().add_(self.eta)

    @torch.no_grad()
    def ascent_step(self) -> None:
        parts: list[Tensor] = []
        for name, p in self.model.named_parameters():
            if p.grad is not None:
                t = self.stretch(name, p)
                self.state[p] = t
                p.grad.mul_(t)
                parts.append(p.grad.norm())
        scale = self.rho / (torch.stack(parts).norm() + 1e-16)
        for p in self.model.parameters():
            if p.grad is not None:
                eps = self.state[p]
                eps.mul_(p.grad).mul_(scale)
                p.add_(eps)
        self.optimizer.zero_grad()

    @torch.no_grad()
    def descent_step(self) -> None:
        for p in self.model.parameters():
            if p.grad is not None:
                p.sub_(self.state[p])
        self.optimizer.step()
        self.optimizer.zero_grad()


def build(base: Base, model: nn.Module, rho: float) -> InPlace:
    return InPlace(base.build(model), model, rho, None)


def asam(base: Base, model: nn.Module, rho: float, eta: float) -> InPlace:
    return InPlace(base.build(model), model, rho, eta)


def step(optimizer: InPlace, model: nn.Module, loss: Any) -> None:
    del model
    loss().backward()
    optimizer.ascent_step()
    loss().backward()
    optimizer.descent_step()


def micro_batches(optimizer: InPlace, model: nn.Module, losses: list[Any]) -> None:
    """Gradients add up before each of the two calls."""
    del model
    for call in (optimizer.ascent_step, optimizer.descent_step):
        for loss in losses:
            loss().backward()
        call()


def base_step(optimizer: InPlace, model: nn.Module, loss: Any) -> None:
    del model
    loss().backward()
    optimizer.ascent_step()
    loss().backward()
    optimizer.optimizer.step()
    optimizer.optimizer.zero_grad()


def scaled_step(optimizer: InPlace, model: nn.Module, loss: Any, scaler: Any) -> None:
    del model
    scaler.scale(loss()).backward()
    scaler.unscale_(optimizer.optimizer)
    optimizer.ascent_step()
    scaler.scale(loss()).backward()
    scaler.unscale_(optimizer.optimizer)
    optimizer.descent_step()
    scaler.update()


def handle(optimizer: InPlace) -> Optimizer:
    return optimizer.optimizer


def save(optimizer: InPlace) -> dict[str, Any]:
    return optimizer.optimizer.state_dict()


def load(optimizer: InPlace, state: dict[str, Any]) -> None:
    optimizer.optimizer.load_state_dict(state)


sam = Adapter(
    name="in-place pattern",
    build=build,
    step=step,
    scaled_step=scaled_step,
    micro_batches=micro_batches,
    base_step=base_step,
    handle=handle,
    save=save,
    load=load,
    asam=asam,
)

"""The pattern that most repositories have: first_step, backward, second_step.

Written from its description: the wrapper takes the base optimizer's class, keeps the
old weights in its own state and puts them back by exchanging ``.data``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from flatmin.conformance import Adapter, Base


class TwoCallSAM(Optimizer):
    def __init__(
        self,
        params: Any,
        kind: type[Optimizer],
        rho: float = 0.05,
        adaptive: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(params, {"rho": rho, "adaptive": adaptive, **options})
        self.base_optimizer = kind(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups
        self.defaults.update(self.base_optimizer.defaults)

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        norm = self._norm()
        for group in self.param_groups:
            scale = group["rho"] / (norm + 1e-12)
            for p in group["params"]:
                if p.grad is None:
                    continue
                self.state[p]["old_p"] = p.data.clone()
                stretch = p.square() if group["adaptive"] else 1.0
                p.add_(stretch * p.grad * scale.to(p))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad: bool = False) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data = self.state[p]["old_p"]
        self.base_optimizer.step()
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if closure is None:
            raise RuntimeError("this step needs a closure")
        self.first_step(zero_grad=True)
        with torch.enable_grad():
            closure()
        self.second_step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.base_optimizer.param_groups = self.param_groups

    def _norm(self) -> Tensor:
        parts = [
            ((p.abs() if group["adaptive"] else 1.0) * p.grad).norm()
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        return torch.stack(parts).norm()


def norms(model: nn.Module) -> list[Any]:
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]


def disable(model: nn.Module) -> None:
    for layer in norms(model):
        layer.backup_momentum = layer.momentum
        layer.momentum = 0.0


def enable(model: nn.Module) -> None:
    for layer in norms(model):
        if hasattr(layer, "backup_momentum"):
            layer.momentum = layer.backup_momentum


def build(base: Base, model: nn.Module, rho: float) -> TwoCallSAM:
    return TwoCallSAM(model.parameters(), base.kind, rho=rho, **base.options)


def asam(base: Base, model: nn.Module, rho: float, eta: float) -> TwoCallSAM:
    del eta  # this pattern has none
    options = base.options
    return TwoCallSAM(model.parameters(), base.kind, rho, True, **options)


def step(optimizer: TwoCallSAM, model: nn.Module, loss: Any) -> None:
    enable(model)
    loss().backward()
    optimizer.first_step(zero_grad=True)
    disable(model)
    loss().backward()
    optimizer.second_step(zero_grad=True)


def closure_step(optimizer: TwoCallSAM, closure: Any) -> Any:
    return optimizer.step(closure)


def scaled_step(
    optimizer: TwoCallSAM, model: nn.Module, loss: Any, scaler: GradScaler
) -> None:
    scaler.scale(loss()).backward()
    scaler.unscale_(optimizer)
    optimizer.first_step(zero_grad=True)
    scaler.scale(loss()).backward()
    scaler.unscale_(optimizer)
    optimizer.second_step(zero_grad=True)
    scaler.update()


def micro_batches(optimizer: TwoCallSAM, model: nn.Module, losses: list[Any]) -> None:
    """Gradients add up before each of the two calls."""
    del model
    for call in (optimizer.first_step, optimizer.second_step):
        for loss in losses:
            loss().backward()
        call(zero_grad=True)


def base_step(optimizer: TwoCallSAM, model: nn.Module, loss: Any) -> None:
    del model
    loss().backward()
    optimizer.first_step(zero_grad=True)
    loss().backward()
    optimizer.base_optimizer.step()
    optimizer.zero_grad()


def rank_local(optimizer: TwoCallSAM, model: Any, loss: Any) -> None:
    value = loss()
    with model.no_sync():
        value.backward()
    optimizer.first_step(zero_grad=True)
    loss().backward()
    optimizer.second_step(zero_grad=True)


def compiled_step(optimizer: TwoCallSAM, model: nn.Module, loss: Any) -> None:
    del model
    first = torch.compile(optimizer.first_step, backend="eager", fullgraph=True)
    loss().backward()
    first()
    optimizer.zero_grad()
    loss().backward()
    optimizer.second_step(zero_grad=True)


def base_of(optimizer: TwoCallSAM) -> Optimizer:
    return optimizer.base_optimizer


sam = Adapter(
    name="two-call pattern",
    build=build,
    step=step,
    closure_step=closure_step,
    scaled_step=scaled_step,
    rank_local=rank_local,
    micro_batches=micro_batches,
    base_step=base_step,
    compiled_step=compiled_step,
    handle=base_of,
    batch_norm=(disable, enable),
    asam=asam,
)

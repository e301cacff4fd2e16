"""A SAM written by hand that has none of the defects; broken ones change one method."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from flatmin.conformance import Adapter, Base
from tests.conformance.snapshot import Snapshot

Vector = list[Tensor | None]


class Hand:
    """Both passes of a step; `flatmin.SAM` does more, and does not look like this."""

    _step_supports_amp_scaling = True  # GradScaler then says that it is there
    snapshot: type[Snapshot] = Snapshot
    between_passes = False

    def __init__(self, base: Optimizer, model: nn.Module, rho: float) -> None:
        self.base, self.model, self.rho = base, model, rho
        self.param_groups = base.param_groups

    # What broken SAMs change.

    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def add_param_group(self, group: dict[str, Any]) -> None:
        self.base.add_param_group(group)

    def first_pass(self) -> Any:
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return nullcontext()

    def norm(self, g: list[Tensor]) -> float:
        squares = torch.stack([v.abs().double().square().sum() for v in g]).sum()
        if isinstance(squares, DTensor):
            squares = squares.full_tensor()
        return self.over_pieces(squares).sqrt().item()

    def over_pieces(self, squares: Tensor) -> Tensor:
        if isinstance(self.model, FullyShardedDataParallel):
            dist.all_reduce(squares)
        return squares

    def scale(self, size: float) -> float:
        return self.rho / size if size > 0 and math.isfinite(size) else 0.0

    def eps(self, g: Vector) -> Vector:
        held = [v for v in g if v is not None]
        if any(v.is_sparse for v in held):
            raise RuntimeError("sparse gradients are refused")
        scale = self.scale(self.norm(held))
        if scale == 0:
            return [None for _ in g]
        return [v if v is None else self.times(v, scale) for v in g]

    def times(self, v: Tensor, scale: float) -> Tensor:
        return (v * scale) if v.is_complex() else (v.double() * scale).to(v.dtype)

    def climb(self, eps: Vector) -> None:
        for p, e in zip(self.parameters(), eps, strict=True):
            if e is not None:
                p.add_(e)

    def put_back(self, w: list[Tensor], eps: Vector) -> None:
        del eps
        for p, old in zip(self.parameters(), w, strict=True):
            p.copy_(old)

    def rewind(self, stream: Tensor) -> None:
        torch.set_rng_state(stream)

    def resume(self, stream: Tensor) -> None:
        torch.set_rng_state(stream)

    def refuse_scaler(self) -> None:
        if getattr(self, "grad_scale", None) is not None:
            raise RuntimeError("GradScaler has not unscaled the gradients of this step")

    def __getstate__(self) -> dict[str, Any]:
        if self.between_passes:
            raise RuntimeError("between the passes there is nothing to copy")
        return self.__dict__

    # What they share.

    def passes(self, backward: Any) -> Any:
        """Gradients at ``w + eps``; the value of the first pass."""
        stream = torch.get_rng_state()
        start = self.snapshot(self.model)
        self.model.zero_grad()
        with self.first_pass():
            value = backward()
        with torch.no_grad():
            eps = self.eps([p.grad for p in self.parameters()])
            w = [p.detach().clone() for p in self.parameters()]
            later, end = torch.get_rng_state(), self.snapshot(self.model)
            self.climb(eps)
        try:
            self.between_passes = True
            start.put_back()
            self.rewind(stream)
            self.model.zero_grad()
            backward()
        finally:
            self.between_passes = False
            with torch.no_grad():
                self.put_back(w, eps)
            end.put_back()
            self.resume(later)
        return value

    def step(self, closure: Any = None) -> Any:
        self.refuse_scaler()
        value = None if closure is None else self.passes(closure)
        self.base.step()
        return value


def build(base: Base, model: nn.Module, rho: float) -> Hand:
    return Hand(base.build(model), model, rho)


def step(optimizer: Hand, model: nn.Module, loss: Any) -> None:
    del model
    optimizer.passes(lambda: loss().backward())
    optimizer.base.step()


def closure_step(optimizer: Hand, closure: Any) -> Any:
    return optimizer.step(closure)


def scaled_step(optimizer: Hand, model: nn.Module, loss: Any, scaler: Any) -> None:
    del model
    optimizer.passes(lambda: scaler.scale(loss()).backward())
    scaler.unscale_(optimizer.base)
    scaler.step(optimizer.base)
    scaler.update()


def micro_batches(optimizer: Hand, model: nn.Module, losses: list[Any]) -> None:
    del model
    total = [torch.zeros_like(p) for p in optimizer.parameters()]
    for loss in losses:
        optimizer.passes(lambda loss=loss: loss().backward())
        for t, p in zip(total, optimizer.parameters(), strict=True):
            t.add_(p.grad if p.grad is not None else 0)
    for t, p in zip(total, optimizer.parameters(), strict=True):
        p.grad = t
    optimizer.base.step()


def base_unscaled_step(
    optimizer: Hand, model: nn.Module, loss: Any, scaler: Any
) -> None:
    del model
    optimizer.passes(lambda: scaler.scale(loss()).backward())
    scaler.unscale_(optimizer.base)
    scaler.step(optimizer)
    scaler.update()


def compiled_step(optimizer: Hand, model: nn.Module, loss: Any) -> None:
    optimizer.climb = torch.compile(
        Hand.climb, backend="eager", fullgraph=True
    ).__get__(optimizer)
    step(optimizer, model, loss)


def base_of(optimizer: Any) -> Any:
    return optimizer.base


def save(optimizer: Hand) -> Any:
    return optimizer.base.state_dict()


def load(optimizer: Hand, state: Any) -> None:
    optimizer.base.load_state_dict(state)


def disable(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.__dict__.setdefault("kept", layer.momentum)
            layer.momentum = 0.0


def enable(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = layer.__dict__.pop("kept", layer.momentum)


class Adaptive(Hand):
    eta = 0.01

    def stretch(self, name: str, p: Tensor) -> Tensor:
        return p.abs() + self.eta if "weight" in name else torch.ones_like(p)

    def eps(self, g: Vector) -> Vector:
        named = self.model.named_parameters()
        t = [self.stretch(name, p.detach()) for name, p in named]
        scaled = super().eps([v if v is None else s * v for s, v in zip(t, g)])  # noqa: B905
        return [e if e is None else s * e for s, e in zip(t, scaled, strict=True)]


class Friendly(Hand):
    sigma, lmbda = 1.0, 0.9
    mean: list[Tensor] | None = None

    def eps(self, g: Vector) -> Vector:
        raw = [v.clone() for v in g if v is not None]
        old = self.mean
        d = raw if old is None else self.residual(raw, old)
        pairs = zip(old or raw, self.averaged(raw, d), strict=True)
        self.mean = [self.lmbda * m + (1 - self.lmbda) * v for m, v in pairs]
        return super().eps([*d])

    def residual(self, g: list[Tensor], mean: list[Tensor]) -> list[Tensor]:
        return [v - self.sigma * m for v, m in zip(g, mean, strict=True)]

    def averaged(self, g: list[Tensor], d: list[Tensor]) -> list[Tensor]:
        del d
        return g


class Noisy(Hand):
    """bSAM's noise, at rho 0 and learning rate 0."""

    def climb(self, eps: Vector) -> None:
        super().climb(eps)
        for p in self.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)


def asam(base: Base, model: nn.Module, rho: float, eta: float) -> Hand:
    optimizer = Adaptive(base.build(model), model, rho)
    optimizer.eta = eta
    return optimizer


def friendly(
    base: Base, model: nn.Module, rho: float, sigma: float, lmbda: float
) -> Hand:
    optimizer = Friendly(base.build(model), model, rho)
    optimizer.sigma, optimizer.lmbda = sigma, lmbda
    return optimizer


def bsam(model: nn.Module) -> Hand:
    return Noisy(torch.optim.SGD(model.parameters(), lr=0.0), model, 0.0)


def friendly_without_mean(base: Base, model: nn.Module, rho: float) -> Hand:
    return friendly(base, model, rho, 0.0, 0.9)


sam = Adapter(
    name="by hand",
    build=build,
    step=step,
    closure_step=closure_step,
    scaled_step=scaled_step,
    rank_local=step,
    micro_batches=micro_batches,
    base_step=step,
    base_unscaled_step=base_unscaled_step,
    compiled_step=compiled_step,
    handle=base_of,
    save=save,
    load=load,
    batch_norm=(disable, enable),
    reductions=(Adapter(name="F-SAM", build=friendly_without_mean, step=step),),
    asam=asam,
    friendly=friendly,
    noisy=bsam,
)

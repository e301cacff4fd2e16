"""The package pytorch_optimizer; its variants at the setting that makes them SAM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from pytorch_optimizer import (  # pyright: ignore[reportMissingImports]
    BSAM,
    GSAM,
    SAM,
    WSAM,
    FriendlySAM,
    LookSAM,
    ProportionScheduler,
)
from pytorch_optimizer.optimizer.utils.model import (  # pyright: ignore[reportMissingImports]
    disable_running_stats,
    enable_running_stats,
)
from torch import nn

from flatmin.conformance import Adapter, Base
from tests.conformance.peers import closures
from tests.conformance.peers.two_call import compiled_step, scaled_step

HELPER = (disable_running_stats, enable_running_stats)


def sam_of(base: Base, model: nn.Module, rho: float) -> Any:
    return SAM(model.parameters(), base.kind, rho=rho, **base.options)


def asam_of(base: Base, model: nn.Module, rho: float, eta: float) -> Any:
    del eta  # the package has none
    options = base.options
    return SAM(model.parameters(), base.kind, rho=rho, adaptive=True, **options)


def look_of(base: Base, model: nn.Module, rho: float) -> Any:
    return LookSAM(model.parameters(), base.kind, rho=rho, k=1, **base.options)


def friendly_of(
    base: Base, model: nn.Module, rho: float, sigma: float = 0.0, lmbda: float = 0.9
) -> Any:
    own = {"sigma": sigma, "lmbda": lmbda}
    return FriendlySAM(model.parameters(), base.kind, rho, **own, **base.options)


def weighted_of(base: Base, model: nn.Module, rho: float) -> Any:
    own = {"gamma": 0.5, "decouple": False}
    return WSAM(model, model.parameters(), base.kind, rho, **own, **base.options)


def surrogate_of(base: Base, model: nn.Module, rho: float) -> Any:
    built = base.build(model)
    constant: Any = SimpleNamespace(optimizer=built)
    radius = ProportionScheduler(constant, 1.0, 1.0, rho, rho)
    return GSAM(model.parameters(), built, model, radius, alpha=0.0)


def bsam_of(model: nn.Module) -> Any:
    return BSAM(model.parameters(), num_data=100, lr=0.0, rho=0.0)


def closure_of(optimizer: Any, loss: Any) -> Any:
    def closure() -> Any:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return closure


def step(optimizer: Any, model: nn.Module, loss: Any) -> None:
    """A backward, then step(closure)."""
    del model
    closure = closure_of(optimizer, loss)
    closure()
    optimizer.step(closure)


def micro_batches(optimizer: Any, model: nn.Module, losses: list[Any]) -> None:
    """All micro-batches are in the closure and share one perturbation."""
    step(optimizer, model, lambda: torch.stack([loss() for loss in losses]).sum())


def surrogate_step(optimizer: Any, model: nn.Module, loss: Any) -> None:
    """What set_closure would build, around a loss that has its batch already."""
    del model

    def closure() -> Any:
        optimizer.base_optimizer.zero_grad()
        with torch.enable_grad():
            value = loss()
        value.backward()
        return None, value.detach()

    optimizer.step(closure)


TWO_CALLS: dict[str, Any] = {
    "step": step,
    "closure_step": closures.closure_step,
    "micro_batches": micro_batches,
    "scaled_step": scaled_step,
    "compiled_step": compiled_step,
    "batch_norm": HELPER,
}

look_sam = Adapter(name="pytorch_optimizer LookSAM", build=look_of, **TWO_CALLS)
friendly_sam = Adapter(
    name="pytorch_optimizer FriendlySAM",
    build=friendly_of,
    friendly=friendly_of,
    **TWO_CALLS,
)
wsam = Adapter(
    name="pytorch_optimizer WSAM",
    build=weighted_of,
    step=closures.step,
    closure_step=closures.closure_step,
    micro_batches=closures.micro_batches,
    scaled_step=scaled_step,
    batch_norm=HELPER,
)
gsam = Adapter(
    name="pytorch_optimizer GSAM",
    build=surrogate_of,
    step=surrogate_step,
    batch_norm=HELPER,
)
sam = Adapter(
    name="pytorch_optimizer SAM",
    build=sam_of,
    asam=asam_of,
    noisy=bsam_of,
    **TWO_CALLS,
)

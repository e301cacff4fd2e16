"""The adapter of flatmin itself, as its documentation shows it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

import flatmin
from flatmin import SAM
from flatmin.conformance._adapter import Adapter, Base, Loss


def build(base: Base, model: nn.Module, rho: float) -> SAM:
    """Build SAM as in the README."""
    return SAM(base.build(model), model, rho=rho)


def step(optimizer: SAM, model: nn.Module, loss: Loss) -> None:
    """Step by the loop with probes."""
    del model
    for _ in optimizer.probes():
        loss().backward()
    optimizer.step()


def closure_step(optimizer: SAM, closure: Loss) -> Any:
    """Step with a closure, as with any optimizer."""
    return optimizer.step(closure)


def scaled_step(
    optimizer: SAM, model: nn.Module, loss: Loss, scaler: GradScaler
) -> None:
    """Scale in the body, unscale and step after the loop."""
    del model
    for _ in optimizer.probes():
        scaler.scale(loss()).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


def accumulated_step(optimizer: SAM, model: nn.Module, loss: Loss) -> None:
    """Step by m-SAM with one part."""
    del model
    optimizer.zero_grad()
    for _ in optimizer.probes(accumulate=True):
        loss().backward()
    optimizer.step()


def micro_batches(optimizer: SAM, model: nn.Module, losses: list[Loss]) -> None:
    """Step by the loop of a user who has not read about ``accumulate=True``."""
    del model
    optimizer.zero_grad()
    for loss in losses:
        for _ in optimizer.probes():
            loss().backward()
    optimizer.step()


def base_step(optimizer: SAM, model: nn.Module, loss: Loss) -> None:
    """Step the base optimizer, as a framework does that was given the base first."""
    del model
    for _ in optimizer.probes():
        loss().backward()
    optimizer.base.step()


def base_unscaled_step(
    optimizer: SAM, model: nn.Module, loss: Loss, scaler: GradScaler
) -> None:
    """Unscale one object, step the other."""
    del model
    for _ in optimizer.probes():
        scaler.scale(loss()).backward()
    scaler.unscale_(optimizer.base)
    scaler.step(optimizer)
    scaler.update()


def asam(base: Base, model: nn.Module, rho: float, eta: float) -> SAM:
    """Build adaptive SAM."""
    return flatmin.asam(base.build(model), model, rho=rho, eta=eta)


def friendly(
    base: Base, model: nn.Module, rho: float, sigma: float, lmbda: float
) -> SAM:
    """Build Friendly SAM."""
    made = base.build(model)
    return flatmin.friendly_sam(made, model, rho=rho, sigma=sigma, decay=lmbda)


def noisy(model: nn.Module) -> SAM:
    """Build SAM with a random perturbation."""
    base = torch.optim.SGD(model.parameters(), lr=0.0)
    return flatmin.random_sam(base, model, rho=0.1)


def build_variant(
    method: Callable[..., SAM],
    options: dict[str, float],
    base: Base,
    model: nn.Module,
    rho: float,
) -> SAM:
    """Build a method with its own options."""
    return method(base.build(model), model, rho=rho, **options)


def reduced(method: Callable[..., SAM], **options: float) -> Adapter:
    """Return the adapter of a method with the options that make it SAM."""
    settings = ", ".join(f"{name}={value}" for name, value in options.items())
    build = partial(build_variant, method, options)
    return Adapter(f"{method.__name__}({settings})", build, step)


REDUCTIONS = (
    Adapter(name="m-SAM, one part", build=build, step=accumulated_step),
    reduced(SAM, p=2.0),
    reduced(flatmin.fisher_sam, eta=0.0),
    reduced(flatmin.friendly_sam, sigma=0.0),
    reduced(flatmin.vasso, theta=1.0),
    reduced(flatmin.gnp, alpha=1.0),
    reduced(flatmin.gsam, alpha=0.0),
    reduced(flatmin.coupled_wsam, gamma=0.5),
    reduced(flatmin.interval_sam, k=1),
    reduced(flatmin.ss_sam, probability=1.0),
    reduced(flatmin.looksam, k=1),
    reduced(flatmin.subset_sam, share=1.0),
    reduced(flatmin.multi_step_sam, k=1),
)

sam = Adapter(
    name="flatmin",
    build=build,
    step=step,
    closure_step=closure_step,
    scaled_step=scaled_step,
    rank_local=step,
    micro_batches=micro_batches,
    base_step=base_step,
    base_unscaled_step=base_unscaled_step,
    reductions=REDUCTIONS,
    asam=asam,
    friendly=friendly,
    noisy=noisy,
)

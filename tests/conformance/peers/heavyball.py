"""The package heavyball: ``SAMWrapper`` around its own optimizers.

Its perturbation is ``ball w^2 g``, ASAM's without the division by a norm, so that the
straight lines use this formula. It wraps no other optimizers; torch's SGD and Adam
are translated, and the rest is what it refuses. Its kernels run uncompiled, which
computes the same.
"""

from __future__ import annotations

from typing import Any

import heavyball  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn
from torch.optim import SGD, Adam

from flatmin.conformance import Adapter, Base
from tests.conformance.peers.closures import closure_step, micro_batches, step

heavyball.utils.compile_mode = None


def own(base: Base, model: nn.Module) -> Any:
    options: dict[str, Any] = {"lr": base.options.get("lr")}
    options["storage_dtype"] = str(next(model.parameters()).dtype).removeprefix(
        "torch."
    )
    if base.kind is SGD:
        options["beta"] = base.options.get("momentum", 0.0)
        return heavyball.SGD(model.parameters(), **options)
    if base.kind is Adam:
        options["betas"] = (0.9, 0.999)
        return heavyball.AdamW(model.parameters(), **options)
    return base.build(model)


def build(base: Base, model: nn.Module, rho: float) -> Any:
    return heavyball.SAMWrapper(model.parameters(), own(base, model), ball=rho)


def asam(base: Base, model: nn.Module, rho: float, eta: float) -> Any:
    del eta  # the package has none
    return build(base, model, rho)


def perturbation(w: list[Tensor], g: list[Tensor], rho: float) -> list[Tensor]:
    return [rho * p.square() * v for p, v in zip(w, g, strict=True)]


def base_of(optimizer: Any) -> Any:
    return optimizer.wrapped_optimizer


sam = Adapter(
    name="heavyball SAMWrapper",
    build=build,
    step=step,
    closure_step=closure_step,
    micro_batches=micro_batches,
    perturbation=perturbation,
    handle=base_of,
    asam=asam,
)

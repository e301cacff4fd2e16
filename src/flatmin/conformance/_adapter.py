"""What the suite needs to know of an optimizer: how to build it and how to step."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

Loss = Callable[[], Tensor]
TakeStep = Callable[[Any, nn.Module, Loss], object]
ScaledStep = Callable[[Any, nn.Module, Loss, GradScaler], object]


@dataclass(frozen=True)
class Base:
    """The base optimizer that SAM steps with, before it is built.

    Attributes:
        kind: its class.
        options: arguments of its constructor besides the parameters.
    """

    kind: type[Optimizer]
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def build(self, model: nn.Module) -> Optimizer:
        """Build the optimizer of all parameters of ``model``."""
        return self.kind(model.parameters(), **self.options)


def itself(optimizer: Any) -> Any:
    """The default of `Adapter.handle`."""
    return optimizer


def save(optimizer: Any) -> dict[str, Any]:
    """The default of `Adapter.save`."""
    return optimizer.state_dict()


def load(optimizer: Any, state: dict[str, Any]) -> None:
    """The default of `Adapter.load`."""
    optimizer.load_state_dict(state)


def along_gradient(w: list[Tensor], g: list[Tensor], rho: float) -> list[Tensor]:
    """The default of `Adapter.perturbation`: SAM's ``rho g / ||g||``, or zero."""
    del w
    size = sum(v.abs().double().square().sum().item() for v in g) ** 0.5
    return [v * (rho / size if size > 0 else 0.0) for v in g]


@dataclass(frozen=True)
class Adapter:
    """One optimizer, used as its documentation shows.

    Where a function is None, the checks that need it do not apply. All functions are
    those of a module, because other processes import them by name.

    Attributes:
        name: heads its column.
        build: the optimizer around a base, for ``(base, model, rho)``.
        step: one training step as documented, for ``(optimizer, model, loss)``;
            ``loss()`` runs the model, the adapter calls backward.
        closure_step: ``optimizer.step(closure)`` as torch has it: the closure clears
            gradients, runs the model, calls backward and returns the loss.
        scaled_step: a step under GradScaler, for ``(optimizer, model, loss, scaler)``,
            with both passes unscaled.
        rank_local: the documented step under DistributedDataParallel in which each
            replica has a perturbation of its own.
        micro_batches: the loop that a user would write to accumulate, for
            ``(optimizer, model, losses)``: all passes of every loss, then one step.
            The losses are divided by their number already.
        base_step: both passes as documented, and then the base object's ``step()``
            instead of the optimizer's.
        base_unscaled_step: as ``scaled_step``, but ``scaler.unscale_`` is given the
            base object and ``scaler.step`` the optimizer.
        compiled_step: a step whose perturbation is under
            ``torch.compile(fullgraph=True)``; torch's own base optimizers cannot be.
        perturbation: how the optimizer computes eps from ``(w, g, rho)``, if not by
            SAM's formula. The straight-line SAM that it is compared with then does the
            same, and the checks of SAM's formula do not apply.
        handle: returns the object that schedulers take.
        save: returns what a user stores.
        load: restores what ``save`` returned, for ``(optimizer, state)``.
        batch_norm: the documented pair of functions of the model that switch
            BatchNorm's running statistics off and on.
        reductions: settings of its variants in which they are SAM.
        asam: its adaptive SAM, for ``(base, model, rho, eta)``.
        friendly: its Friendly SAM, for ``(base, model, rho, sigma, lmbda)``.
        noisy: its method with random noise (bSAM, say), with learning rate zero, for
            ``(model)``.
    """

    name: str
    build: Callable[[Base, nn.Module, float], Any]
    step: TakeStep
    closure_step: Callable[[Any, Loss], Any] | None = None
    scaled_step: ScaledStep | None = None
    rank_local: TakeStep | None = None
    micro_batches: Callable[[Any, nn.Module, list[Loss]], object] | None = None
    base_step: TakeStep | None = None
    base_unscaled_step: ScaledStep | None = None
    compiled_step: TakeStep | None = None
    perturbation: Callable[[list[Tensor], list[Tensor], float], list[Tensor]] = (
        along_gradient
    )
    handle: Callable[[Any], Any] = itself
    save: Callable[[Any], dict[str, Any]] = save
    load: Callable[[Any, dict[str, Any]], object] = load
    batch_norm: (
        tuple[Callable[[nn.Module], object], Callable[[nn.Module], object]] | None
    ) = None
    reductions: tuple[Adapter, ...] = ()
    asam: Callable[[Base, nn.Module, float, float], Any] | None = None
    friendly: Callable[[Base, nn.Module, float, float, float], Any] | None = None
    noisy: Callable[[nn.Module], Any] | None = None


def load_adapter(where: str) -> Adapter:
    """Import the adapter that a string names.

    Args:
        where: ``"package.module:attribute"``.

    Raises:
        ValueError: the string has another form, or nothing can be imported by it.
        TypeError: what it names is not an `Adapter`.
    """
    module, colon, attribute = where.partition(":")
    if not (module and colon and attribute):
        raise ValueError(
            f"an adapter is named 'module:attribute', got {where!r}. "
            "Example: flatmin.conformance.ours:sam."
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # The module may raise anything on import.
        message = f"cannot import the adapter {where!r}: {error}"
        raise ValueError(f"{message.rstrip('.')}.") from error
    if not isinstance(found, Adapter):
        raise TypeError(
            f"{where!r} is a {type(found).__name__}, not a flatmin.conformance.Adapter."
        )
    return found

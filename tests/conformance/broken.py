"""For each check a SAM with precisely the defect that the check names."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, Optimizer

from flatmin.conformance import Adapter, Base
from flatmin.conformance._distributed import CONTROL
from tests.conformance import hand
from tests.conformance.careless import (
    Copying,
    RestoresInStep,
    Unprotected,
    UnscaledAgain,
    last_alone,
    load_state,
    own_step,
    save_state,
)
from tests.conformance.forgetful import (
    KeepsSizes,
    KnowsBatchNorm,
    KnowsBuffers,
    KnowsFloats,
    KnowsPython,
    KnowsTensors,
    UpdatesTwice,
)
from tests.conformance.hand import Adaptive, Friendly, Hand, Noisy, Vector, sam


def forgetful(optimizer: Hand) -> Any:
    return {**optimizer.base.state_dict(), "state": {}}


def new_groups(optimizer: Hand, state: Any) -> None:
    """The scheduler keeps the optimizer that was there before."""
    optimizer.base = SGD(optimizer.parameters(), lr=0.1)
    optimizer.base.load_state_dict(state)


class LocalNorm(Hand):
    def norm(self, g: list[Tensor]) -> float:
        return super().norm([v.to_local() if isinstance(v, DTensor) else v for v in g])


class Piecewise(Hand):
    def over_pieces(self, squares: Tensor) -> Tensor:
        return squares


class Averaged(Hand):
    def first_pass(self) -> Any:
        return nullcontext()


class Unguarded(Averaged):
    def scale(self, size: float) -> float:
        return torch.tensor(self.rho).div(size).item()


class Scaled(Hand):
    def refuse_scaler(self) -> None:
        pass


def unscaled_twice(optimizer: Hand, model: nn.Module, loss: Any, scaler: Any) -> None:
    def backward() -> None:
        scaler.scale(loss()).backward()
        scaler.unscale_(optimizer.base)

    del model
    optimizer.passes(backward)
    scaler.step(optimizer.base)
    scaler.update()


class RestoresWhatHasGradients(Hand):
    def put_back(self, w: list[Tensor], eps: Vector) -> None:
        for p, old in zip(self.parameters(), w, strict=True):
            if p.grad is not None:
                p.copy_(old)


class DescendsWhatItClimbed(Hand):
    def put_back(self, w: list[Tensor], eps: Vector) -> None:
        super().put_back(w, eps)
        for p, e in zip(self.parameters(), eps, strict=True):
            p.grad = None if e is None else p.grad


def expects_backward(optimizer: Hand, closure: Any) -> Any:
    """The first gradients are those that happen to be there."""
    calls = 0

    def second_only() -> Any:
        nonlocal calls
        calls += 1
        return closure() if calls > 1 else None

    return optimizer.step(second_only)


def returns_nothing(optimizer: Hand, closure: Any) -> None:
    optimizer.step(closure)


class OwnPrecision(Hand):
    def norm(self, g: list[Tensor]) -> float:
        parts = torch.stack([v.square().sum() for v in g])
        return parts.sum().sqrt().item()


class RoundedNorm(Hand):
    def norm(self, g: list[Tensor]) -> float:
        return torch.tensor(super().norm(g), dtype=g[0].dtype).item()


class Constant(Hand):
    def scale(self, size: float) -> float:
        return self.rho / (size + 1e-12)


class Subtracting(Hand):
    def put_back(self, w: list[Tensor], eps: Vector) -> None:
        for p, e in zip(self.parameters(), eps, strict=True):
            if e is not None:
                p.sub_(e)


class SubtractsAnything(Subtracting):
    def eps(self, g: Vector) -> Vector:
        scale = self.rho / self.norm([v for v in g if v is not None])
        return [v if v is None else self.times(v, scale) for v in g]


class Closed(Hand):
    """Knows the parameters there were at the beginning."""

    def __init__(self, base: Optimizer, model: nn.Module, rho: float) -> None:
        super().__init__(base, model, rho)
        self.known = list(model.parameters())

    def parameters(self) -> list[nn.Parameter]:
        return self.known


def disable_and_forget(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.__dict__["kept"], layer.momentum = layer.momentum, 0.0


def off_until_the_end(switch: Any) -> Any:
    """Switches statistics off for the second pass, and on if all went well."""

    def step(optimizer: Hand, model: nn.Module, loss: Any) -> None:
        switches = iter([lambda _: None, switch])
        hand.step(optimizer, model, lambda: (next(switches)(model), loss())[1])
        hand.enable(model)

    return step


class NewMasks(Hand):
    def rewind(self, stream: Tensor) -> None:
        pass


class DrawsTwice(Hand):
    def resume(self, stream: Tensor) -> None:
        torch.randn(1)


class Exchanging(Hand):
    def put_back(self, w: list[Tensor], eps: Vector) -> None:
        for p, old in zip(self.parameters(), w, strict=True):
            p.data = old


class Branching(Hand):
    def climb(self, eps: Vector) -> None:
        for p, e in zip(self.parameters(), eps, strict=True):
            if e is not None and e.abs().max() > 0:
                p.add_(e)


def compiled_branch(optimizer: Hand, model: nn.Module, loss: Any) -> None:
    whole = torch.compile(Branching.climb, backend="eager", fullgraph=True)
    optimizer.climb = whole.__get__(optimizer)
    hand.step(optimizer, model, loss)


def never_stepped(optimizer: Hand) -> Optimizer:
    """A wrapper that shares the groups, and whose own step nobody calls."""
    outer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    outer.param_groups = optimizer.base.param_groups
    return outer


class SquaredWeights(Adaptive):
    def stretch(self, name: str, p: Tensor) -> Tensor:
        return p.abs()


class NotAdaptive(Adaptive):
    def stretch(self, name: str, p: Tensor) -> Tensor:
        return torch.ones_like(p)


class MeanOfResiduals(Friendly):
    def averaged(self, g: list[Tensor], d: list[Tensor]) -> list[Tensor]:
        return d


class NoiseStays(Noisy):
    def put_back(self, w: list[Tensor], eps: Vector) -> None:
        pass


class NoModulus(Hand):
    def norm(self, g: list[Tensor]) -> float:
        return sum(v.real.square().sum().item() for v in g) ** 0.5


class Unperturbed(Hand):
    def climb(self, eps: Vector) -> None:
        pass


class Unrestored(Hand):
    def put_back(self, w: list[Tensor], eps: Vector) -> None:
        pass


def with_weights(optimizer: Hand) -> Any:
    copies = [p.detach().clone() for p in optimizer.parameters()]
    return {**optimizer.base.state_dict(), "old": copies}


def without_copies(optimizer: Hand, state: Any) -> None:
    state = copy.copy(state)
    state.pop("old")
    optimizer.base.load_state_dict(state)


def builder(kind: type[Hand]) -> Callable[[Base, nn.Module, float], Hand]:
    return lambda base, model, rho: kind(base.build(model), model, rho)


def of(kind: type[Hand], **doors: Any) -> Adapter:
    return replace(sam, build=builder(kind), name=kind.__name__, **doors)


# The other processes import these by name.
def build_local_norm(base: Base, model: nn.Module, rho: float) -> Hand:
    return LocalNorm(base.build(model), model, rho)


def build_piecewise(base: Base, model: nn.Module, rho: float) -> Hand:
    return Piecewise(base.build(model), model, rho)


def build_averaged(base: Base, model: nn.Module, rho: float) -> Hand:
    return Averaged(base.build(model), model, rho)


def build_unguarded(base: Base, model: nn.Module, rho: float) -> Hand:
    return Unguarded(base.build(model), model, rho)


def asam_of(kind: type[Adaptive]) -> Any:
    return lambda base, model, rho, eta: kind(base.build(model), model, rho)


def mean_of_residuals(
    base: Base, model: nn.Module, rho: float, sigma: float, lmbda: float
) -> Hand:
    optimizer = MeanOfResiduals(base.build(model), model, rho)
    optimizer.sigma, optimizer.lmbda = sigma, lmbda
    return optimizer


def noise_stays(model: nn.Module) -> Hand:
    return NoiseStays(SGD(model.parameters(), lr=0.0), model, 0.0)


class FallingAdaptive(Adaptive):
    def scale(self, size: float) -> float:
        return -super().scale(size)


class MovesAndStops(Scaled):
    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        raise RuntimeError("too late")


def asleep(optimizer: Hand, model: nn.Module, loss: Any) -> None:
    """Swallows what goes wrong."""
    with suppress(Exception):
        hand.step(optimizer, model, loss)


def overflowing(optimizer: Hand, model: nn.Module, loss: Any, scaler: Any) -> None:
    hand.scaled_step(optimizer, model, lambda: loss() * torch.inf, scaler)


def never_averaged(optimizer: Hand, model: Any, loss: Any) -> None:
    with model.no_sync():
        hand.step(optimizer, model, loss)


def another_rate(optimizer: Hand, state: Any) -> None:
    hand.load(optimizer, state)
    optimizer.base.param_groups[0]["lr"] *= 2


BROKEN: dict[str, list[Adapter]] = {
    "C1": [replace(sam, save=forgetful)],
    "C2": [replace(sam, save=forgetful)],
    "C3": [replace(sam, load=new_groups)],
    "C4": [replace(sam, build=build_local_norm)],
    "C5": [replace(sam, build=build_averaged)],
    "C6": [replace(sam, build=build_unguarded)],
    "C7": [of(Scaled)],
    "C8": [replace(sam, scaled_step=unscaled_twice)],
    "C9": [of(RestoresWhatHasGradients), of(Unrestored), of(Unperturbed)],
    "C10": [of(DescendsWhatItClimbed)],
    "C11": [replace(sam, closure_step=expects_backward)],
    "C12": [replace(sam, closure_step=returns_nothing)],
    "C13": [of(Unguarded)],
    "C14": [of(OwnPrecision)],
    "C15": [of(RoundedNorm)],
    "C16": [of(Constant)],
    "C17": [of(SubtractsAnything)],
    "C18": [of(Closed)],
    "C19": [
        replace(sam, batch_norm=(disable_and_forget, hand.enable)),
        replace(sam, batch_norm=None, step=off_until_the_end(disable_and_forget)),
        replace(sam, batch_norm=None, step=off_until_the_end(nn.Module.eval)),
    ],
    "C20": [of(UpdatesTwice)],
    "C21": [of(KnowsBatchNorm)],
    "C22": [of(NewMasks)],
    "C23": [of(Exchanging)],
    "C24": [replace(sam, compiled_step=compiled_branch)],
    "C25": [replace(sam, handle=never_stepped)],
    "C26": [replace(sam, asam=asam_of(SquaredWeights))],
    "C27": [replace(sam, friendly=mean_of_residuals)],
    "C28": [replace(sam, noisy=noise_stays)],
    "C29": [of(UpdatesTwice), of(NewMasks)],
    "C30": [of(NoModulus)],
    "C31": [of(UpdatesTwice), of(KnowsTensors), of(KnowsFloats)],
    "C32": [of(UpdatesTwice), of(KeepsSizes)],
    "C33": [of(KnowsPython)],
    "C34": [of(KnowsBuffers)],
    "C35": [replace(sam, build=build_piecewise)],
    "C36": [replace(sam, save=save_state, load=load_state)],
    "C37": [of(RestoresInStep, step=own_step), of(UnscaledAgain)],
    "C38": [replace(sam, micro_batches=last_alone)],
    "C39": [of(Copying)],
    "T1": [of(DrawsTwice), replace(sam, save=forgetful)],
    "T2": [of(Unperturbed), of(Unrestored)],
    "T3": [replace(sam, asam=asam_of(NotAdaptive))],
    "T4": [replace(sam, reductions=(of(Unperturbed),))],
    "T5": [of(Unprotected), of(Subtracting)],
    "T6": [
        replace(sam, save=with_weights, load=without_copies),
    ],
}

#: What takes a figure its meaning, and what the result then says.
MEANINGLESS: list[tuple[str, Adapter, str]] = [
    ("C5", replace(sam, rank_local=never_averaged), "the step is off by"),
    ("C7", of(MovesAndStops), "too late"),
    ("C8", replace(sam, scaled_step=overflowing), "the scale went from 65536 to"),
    ("C9", CONTROL, "loss() 1 times; SAM needs two"),
    ("C9", of(Unperturbed), "nothing was perturbed"),
    ("C20", of(Unperturbed), "nothing was perturbed"),
    ("C39", of(Unperturbed), "nothing was perturbed"),
    ("T3", replace(sam, asam=asam_of(FallingAdaptive)), "does not climb"),
    ("T5", of(Unperturbed), "nothing was perturbed"),
    ("T5", replace(sam, step=asleep), "its exception got lost"),
    ("T6", replace(sam, load=another_rate), "after loading, a weight is off"),
]

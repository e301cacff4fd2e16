"""Training loops: flatmin's, and those that the authors' optimizers need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin import SAM
from flatmin.core import TwoPoint

RATE, MOMENTUM = 0.1, 0.9
SGD = {"lr": RATE, "momentum": MOMENTUM}

Batches = list[tuple[Tensor, Tensor]]
#: Trains the model in place.
Run = Callable[[nn.Module, Batches], None]
#: Makes one of the authors' optimizers for a model.
Build = Callable[[nn.Module], Any]


def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model(x), y)


def each(predictions: Tensor, y: Tensor) -> Tensor:
    """Return the loss of every example."""
    return cross_entropy(predictions, y, reduction="none")


def base(model: nn.Module, **options: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), **{**SGD, **options})


def without(model: nn.Module, batches: Batches) -> None:
    """Train with SGD alone."""
    optimizer = base(model)
    for x, y in batches:
        optimizer.zero_grad()
        loss(model, x, y).backward()
        optimizer.step()


# flatmin's loops.


def ours(build: Callable[..., SAM], **options: Any) -> Run:
    def run(model: nn.Module, batches: Batches) -> None:
        probe(build(base(model), model, **options), model, batches)

    return run


def probe(optimizer: SAM, model: nn.Module, batches: Batches) -> None:
    for x, y in batches:
        for one in optimizer.probes():
            one.backward(loss(model, x, y))
        optimizer.step()


def custom(**joints: Any) -> Callable[..., SAM]:
    """Build a method that has no name in flatmin from its parts."""

    def build(base: torch.optim.Optimizer, model: nn.Module, *, rho: float) -> SAM:
        return SAM(base, model, rho=rho, method=TwoPoint(**joints))

    return build


# The authors' loops.


def calls(*parts: str, **options: Any) -> Callable[[Build], Run]:
    """Take a gradient before each call of these methods."""

    def loop(build: Build) -> Run:
        def run(model: nn.Module, batches: Batches) -> None:
            optimizer = build(model)
            for x, y in batches:
                for part in parts:
                    loss(model, x, y).backward()
                    getattr(optimizer, part)(**options)

        return run

    return loop


two_calls = calls("first_step", "second_step", zero_grad=True)
three_calls = calls("first_step", "second_step", "third_step", zero_grad=True)
#: These two clear the gradients themselves.
ascent_descent = calls("ascent_step", "descent_step")


def closures(build: Build) -> Run:
    """Train by ``set_closure`` and ``step``."""

    def run(model: nn.Module, batches: Batches) -> None:
        optimizer = build(model)
        for x, y in batches:
            optimizer.set_closure(cross_entropy, x, y)
            optimizer.step()

    return run

"""Losses that differ from pass to pass against the papers' formulas, written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from flatmin import SAM
from flatmin.methods import part_sam
from flatmin.optim import Probe
from tests.methods.against import STEPS, Pair, batch_of, close, pair_of
from tests.problems import gradient
from tests.reference import parts
from tests.reference.bases import AdamW, Sgd

RHO = 0.1
C_F, C_R = 0.3, 1.7

#: From the outputs and the labels of a batch to a part of the loss.
Part = Callable[[Tensor, Tensor], Tensor]


def head(z: Tensor, y: Tensor) -> Tensor:
    return (F.cross_entropy(z, y, reduction="none") * (y < 2)).mean()


def tail(z: Tensor, y: Tensor) -> Tensor:
    return (F.cross_entropy(z, y, reduction="none") * (y == 2)).mean()


def forget(z: Tensor, y: Tensor) -> Tensor:
    """Of the first four examples, whose likelihood is to fall."""
    return F.logsigmoid(F.cross_entropy(z[:4], y[:4], reduction="none")).neg().mean()


def retain(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z[4:], y[4:])


def losses(pair: Pair, part: Part) -> list[parts.Loss]:
    def on(step: int) -> parts.Loss:
        x, y = batch_of(step)

        def loss(w: list[Tensor]) -> Tensor:
            named = dict(zip(pair.names, w, strict=True))
            return part(functional_call(pair.net, named, (x,)), y)

        return loss

    return [on(k) for k in range(STEPS)]


def train(optimizer: SAM, pair: Pair, body: Callable[..., Tensor]) -> None:
    for k in range(STEPS):
        for probe in optimizer.probes():
            body(probe, *batch_of(k)).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_part_sam_is_imb_sam_on_the_rare_classes(kind: str) -> None:
    pair = pair_of(kind, ((1.0, 1.0), (1e-3, 1e-3)), RHO)

    def body(probe: Probe, x: Tensor, y: Tensor) -> Tensor:
        z = pair.net(x)
        return probe.total(flat=tail(z, y), rest=head(z, y))

    train(part_sam(pair.base, pair.net, rho=RHO), pair, body)
    most, few = losses(pair, head), losses(pair, tail)
    pair.check(parts.imb_sam(most, few, pair.start, pair.reference, RHO), {})


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_part_sam_is_the_sharpness_aware_unlearning(kind: str) -> None:
    pair = pair_of(kind, ((1.0, 1.0), (1e-3, 1e-3)), RHO)

    def body(probe: Probe, x: Tensor, y: Tensor) -> Tensor:
        return probe.total(
            flat=lambda: C_F * forget(pair.net(x), y),
            rest=lambda: C_R * retain(pair.net(x), y),
        )

    train(part_sam(pair.base, pair.net, rho=RHO), pair, body)
    base: Sgd | AdamW = pair.reference
    weights: dict[str, Any] = {"rho": RHO, "c_f": C_F, "c_r": C_R}
    gone, kept = losses(pair, forget), losses(pair, retain)
    pair.check(parts.unlearning(gone, kept, pair.start, base, **weights), {})


def test_a_loop_that_keeps_the_slope_is_functional_sam() -> None:
    pair, (x, y) = pair_of("sgd", ((1.0, 1.0), (0.0, 0.0)), RHO), batch_of(0)
    slope: Tensor | None = None
    for probe in SAM(pair.base, pair.net, rho=RHO).probes():
        z = pair.net(x)
        if probe.ascended:
            assert slope is not None
            (z * slope).sum().backward()
        else:
            z.retain_grad()
            F.cross_entropy(z, y).backward()
            slope = z.grad

    def outputs(w: list[Tensor]) -> Tensor:
        return functional_call(pair.net, dict(zip(pair.names, w, strict=True)), (x,))

    expected = parts.functional_sam(
        outputs, lambda z: F.cross_entropy(z, y), pair.start, RHO
    )
    close([gradient(p) for p in pair.net.parameters()], expected)

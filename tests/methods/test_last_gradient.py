"""What the step before found is climbed, and nothing that is older."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

import flatmin
from flatmin import SAM

RHO = 0.1
ROWS = torch.tensor([[3.0, 4.0], [4.0, -3.0], [-5.0, 12.0], [1.0, 2.0]]).double()


class Lines(nn.Module):
    """A linear loss of two weights; the second may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1).double())
        self.b = nn.Parameter(torch.zeros(1).double())

    def forward(self, slope: Tensor, both: bool = True) -> Tensor:
        loss = slope[0] * self.a
        return (loss + slope[1] * self.b if both else loss).sum()


def built(name: str) -> tuple[Lines, SAM]:
    model = Lines()
    base = SGD(model.parameters(), lr=1e-3)
    return model, getattr(flatmin, name)(base, model, rho=RHO)


def step(model: Lines, optimizer: SAM, t: int, both: bool = True) -> list[float] | None:
    """Train on row t; return how far the step climbed, if it did."""
    start, eps = [model.a.item(), model.b.item()], None
    for probe in optimizer.probes():
        if probe.ascended:
            eps = [model.a.item() - start[0], model.b.item() - start[1]]
        model(ROWS[t], both).backward()
    optimizer.step()
    return eps


#: sampa climbs along the gradient ahead, which is the same of a linear loss.
LAST = pytest.mark.parametrize("name", ["stale_sam", "alternating_sam", "sampa"])


@LAST
def test_the_gradient_of_the_step_before_is_climbed(name: str) -> None:
    model, optimizer = built(name)
    for t in (0, 1, 2):
        step(model, optimizer, t)
    assert step(model, optimizer, 3) == pytest.approx([-RHO * 5 / 13, RHO * 12 / 13])


@LAST
def test_a_layer_that_the_step_before_left_out_stays(name: str) -> None:
    model, optimizer = built(name)
    for t, both in enumerate([True, True, False]):
        step(model, optimizer, t, both)
    assert step(model, optimizer, 3) == pytest.approx([-RHO, 0])


@LAST
def test_a_layer_that_was_frozen_in_the_step_before_stays(name: str) -> None:
    model, optimizer = built(name)
    for t in (0, 1, 2):
        model.b.requires_grad_(t < 2)
        step(model, optimizer, t)
    model.b.requires_grad_(True)
    assert step(model, optimizer, 3) == pytest.approx([-RHO, 0])


def plain(model: Lines, optimizer: SAM, t: int) -> None:
    optimizer.zero_grad()
    model(ROWS[t]).backward()
    optimizer.base.step()


def without_radius(model: Lines, optimizer: SAM, t: int) -> None:
    optimizer.param_groups[0]["sam_rho"] = 0.0
    step(model, optimizer, t)
    optimizer.param_groups[0]["sam_rho"] = RHO


@pytest.mark.parametrize("between", [plain, without_radius])
def test_an_alternating_pair_that_a_plain_step_broke_begins_anew(
    between: Callable[[Lines, SAM, int], None],
) -> None:
    model, optimizer = built("alternating_sam")
    step(model, optimizer, 0)
    step(model, optimizer, 1)
    between(model, optimizer, 2)
    assert step(model, optimizer, 3) is None
    step(model, optimizer, 2)
    assert step(model, optimizer, 0) == pytest.approx([-RHO * 5 / 13, RHO * 12 / 13])

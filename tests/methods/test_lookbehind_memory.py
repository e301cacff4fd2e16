"""Lookbehind-SAM where a block of steps is interrupted, or a weight takes no part."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

import flatmin
from flatmin import SAM


class Lines(nn.Module):
    """A linear loss: every weight that is used has gradient 1."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor([10.0], dtype=torch.float64))

    def forward(self, both: bool) -> Tensor:
        return (self.a + self.b if both else self.a).sum()


def lookbehind(model: nn.Module) -> SAM:
    base = SGD(model.parameters(), lr=1.0)
    return flatmin.lookbehind_sam(base, model, k=2, alpha=0.5, rho=0.001)


def step(optimizer: SAM, model: nn.Module, both: bool = True) -> None:
    for _ in optimizer.probes():
        model(both).backward()
    optimizer.step()


def test_a_weight_without_gradient_begins_its_block_where_it_is() -> None:
    """b is left out of the third step, so that half of its one move is taken back."""
    model = Lines()
    optimizer = lookbehind(model)
    places: list[float] = []
    for both in (True, True, False, True):
        step(optimizer, model, both)
        places.append(model.b.item())
    assert places == pytest.approx([9.0, 9.0, 9.0, 8.5])


def test_a_step_of_the_base_alone_ends_a_block() -> None:
    model = Lines()
    optimizer = lookbehind(model)
    for _ in range(2):
        step(optimizer, model)
    assert model.b.item() == pytest.approx(9.0)
    optimizer.zero_grad()
    model(True).backward()
    optimizer.base.step()
    step(optimizer, model)
    assert model.b.item() == pytest.approx(7.5)


def test_a_layer_that_is_thawed_in_a_block_is_not_moved_to_zero() -> None:
    model = Lines()
    model.b.requires_grad_(False)
    optimizer = lookbehind(model)
    step(optimizer, model)
    model.b.requires_grad_(True)
    seen: list[float] = []
    for _ in optimizer.probes():
        seen.append(model.b.item())
        model(True).backward()
    assert seen == pytest.approx([10.0] * len(seen), abs=0.01)

"""The recommended method: which one it is, and what it costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatmin
from flatmin import SAM


def trained(build: str, steps: int = 20) -> tuple[list[Tensor], int]:
    """The weights after a training, and the examples whose gradients it took."""
    torch.manual_seed(0)
    model = nn.Linear(6, 3).double()
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    make = getattr(flatmin, build)
    optimizer: SAM = make(base, model, steps=steps, rho=0.2)
    seen = 0
    for _ in range(steps):
        x, y = torch.randn(16, 6).double(), torch.randint(3, (16,))
        for probe in optimizer.probes():
            a, b = probe.take(x, y)
            seen += len(a)
            F.cross_entropy(model(a), b).backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()], seen


def test_it_is_late_sam_on_a_quarter_of_the_batch() -> None:
    weights, _ = trained("fast")
    expected, _ = trained("late_subset_sam")
    assert all(map(torch.equal, weights, expected))


def test_a_training_takes_a_tenth_more_gradients_than_the_base() -> None:
    _, seen = trained("fast")
    assert seen == 1.1 * 20 * 16


def test_what_it_cannot_take_is_refused_by_its_own_name() -> None:
    model = nn.Linear(2, 1)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"fast\(\)"):
        flatmin.fast(base, model)  # type: ignore[call-arg]

"""A base that maximizes: the adversary lowers the objective."""

import copy
import math

import pytest
import torch
from torch import nn

from flatmin import SAM
from tests.problems import Quadratic, batch, gradient, loss_of, two_layers

DATA = batch(torch.float64)


def run(model: nn.Sequential, signs: tuple[float, float], p: float) -> SAM:
    """10 steps on two losses, of which the negative ones are maximized."""
    groups = [
        {"params": [*layer.parameters()], "maximize": sign < 0}
        for layer, sign in zip(model, signs, strict=True)
    ]
    base = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)
    optimizer = SAM(base, model, rho=0.1, p=p)
    for _ in range(10):
        for _ in optimizer.probes():
            loss_of(model, DATA).backward()
            for layer, sign in zip(model, signs, strict=True):
                for q in layer.parameters():
                    gradient(q).mul_(sign)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("signs", [(-1.0, -1.0), (1.0, -1.0)])
def test_it_equals_descending_the_negated_objective(
    signs: tuple[float, float], p: float
) -> None:
    model = two_layers()
    twin = copy.deepcopy(model)
    run(model, signs, p)
    run(twin, (1.0, 1.0), p)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


def test_the_adversary_goes_down_and_the_step_goes_up() -> None:
    model = Quadratic()
    w = model.w.detach().clone()
    base = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    optimizer = SAM(base, model, rho=0.2)
    for probe in optimizer.probes():
        loss = model()
        loss.backward()
        probe.loss = loss
    assert optimizer.sharpness is not None
    assert optimizer.sharpness < 0
    expected = model.sam_gradient(-0.2)
    torch.testing.assert_close(gradient(model.w), expected, rtol=1e-12, atol=0)
    optimizer.step()
    torch.testing.assert_close(model.w.detach(), w + 0.1 * expected)

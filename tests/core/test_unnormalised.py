"""``rho g``: what the length of the gradient does to it."""

import math

import pytest
import torch

from flatmin.core import Unnormalised


def test_a_narrow_gradient_is_multiplied_in_float32() -> None:
    g = torch.tensor([1.0, 0.3, -7.0], dtype=torch.bfloat16)
    (eps,) = Unnormalised()([g], [g], [0.1], [0]).eps
    assert eps is not None
    assert eps.dtype == torch.float32
    assert torch.equal(eps, 0.1 * g.float())


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_gradient_that_is_not_finite_moves_nothing(bad: float) -> None:
    g = torch.tensor([1.0, bad])
    ascent = Unnormalised()([g], [g], [0.1], [0])
    assert not ascent.ok
    (eps,) = ascent.eps
    assert eps is not None
    assert torch.equal(eps, torch.zeros(2))

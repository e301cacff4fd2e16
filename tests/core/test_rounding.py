"""Adding to narrow weights: rounded up or down by chance, right on average."""

import math

import pytest
import torch
from torch import Tensor

from flatmin.core import _tensors as ts

NARROW = [torch.bfloat16, torch.float16]
#: Exponents: ordinary, near one of a power of two, below the smallest normal float16.
SIZES = [1.0, 0.03, 2.0**-14, 2.0**-20]


def neighbours(w: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The two numbers of the narrow dtype around ``w + x``, below and above."""
    y = w.double() + x.double()
    nearest = y.to(w.dtype)
    down = torch.nextafter(nearest, torch.full_like(nearest, -math.inf))
    up = torch.nextafter(nearest, torch.full_like(nearest, math.inf))
    above = nearest.double() > y
    return torch.where(above, down, nearest), torch.where(above, nearest, up)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", NARROW)
def test_the_sum_is_one_of_its_neighbours_and_right_on_average(
    dtype: torch.dtype, size: float
) -> None:
    draw = torch.Generator().manual_seed(3)
    w = (torch.randn(500, generator=draw) * size).to(dtype)
    x = torch.randn(500, generator=draw) * size / 1000
    low, high = neighbours(w, x)
    total = torch.zeros(500, dtype=torch.float64)
    runs = 400
    for seed in range(runs):
        moved = w.clone()
        ts.add_by_chance_(moved, x, seed)
        assert ((moved == low) | (moved == high)).all()
        total += moved.double()
    step = (high.double() - low.double()).clamp_min(1e-300)
    error = (total / runs - w.double() - x.double()) / step
    # A share of 400 draws has a standard deviation of at most 0.025.
    assert error.abs().max() < 0.125
    assert error.mean().abs() < 0.005


@pytest.mark.parametrize("dtype", NARROW)
def test_a_sum_that_fits_is_taken_as_it_is(dtype: torch.dtype) -> None:
    w = torch.tensor([1.0, -1.0, 0.0, -0.0, 2.0**-14, 0.5, 1.5], dtype=dtype)
    x = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, -0.25, 2.0])
    for seed in range(50):
        moved = w.clone()
        ts.add_by_chance_(moved, x, seed)
        assert torch.equal(moved.double(), w.double() + x.double())


@pytest.mark.parametrize("dtype", NARROW)
def test_the_largest_number_does_not_become_infinite(dtype: torch.dtype) -> None:
    top = torch.finfo(dtype).max
    w = torch.tensor([top, -top], dtype=dtype)
    ts.add_by_chance_(w, torch.tensor([top / 500, -top / 500]), 0)
    assert w.tolist() == [top, -top]


@pytest.mark.parametrize("dtype", NARROW)
def test_what_is_not_finite_stays_so(dtype: torch.dtype) -> None:
    w = torch.tensor([1.0, 1.0, 1.0], dtype=dtype)
    ts.add_by_chance_(w, torch.tensor([math.inf, -math.inf, math.nan]), 0)
    assert w[:2].tolist() == [math.inf, -math.inf]
    assert w[2].isnan()


def test_it_draws_from_no_global_stream_and_repeats_itself() -> None:
    w = torch.randn(6, 4).bfloat16().T
    x = torch.randn(4, 6) / 1000
    before = torch.get_rng_state()
    sums = [w.clone() for _ in range(3)]
    for moved, seed in zip(sums, [5, 5, 6], strict=True):
        ts.add_by_chance_(moved, x, seed)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(sums[0], sums[1])
    assert not torch.equal(sums[0], sums[2])

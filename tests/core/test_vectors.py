"""Gradients as one vector, with entries that are missing, empty, narrow or complex."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flatmin.core import Gradients
from flatmin.core import vectors as vec


def entries(seed: int) -> list[Tensor]:
    """One of each kind that a model may have."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)

    imaginary = random(3, dtype=torch.float64) * 1j
    return [
        random(4, 3, dtype=torch.float32),
        torch.empty(0, 5),
        random(7, dtype=torch.bfloat16),
        random(3, dtype=torch.float64) + imaginary,
        random(dtype=torch.float64),
        random(6, 2, dtype=torch.float32).T,
    ]


def flat(a: Gradients) -> Tensor:
    """The entries that are there, as one real vector in float64."""
    parts = []
    for x in a:
        if x is not None:
            wide = torch.view_as_real(x) if x.is_complex() else x
            parts.append(wide.double().reshape(-1))
    return torch.cat(parts)


def holes(a: list[Tensor], *at: int) -> Gradients:
    return [None if i in at else x for i, x in enumerate(a)]


W = entries(0)


@pytest.mark.parametrize("missing", [(), (0,), (1, 3), (0, 1, 2, 4)])
def test_the_norm_is_that_of_all_entries(missing: tuple[int, ...]) -> None:
    a = holes(entries(1), *missing)
    found = vec.norm(W, a)
    assert found.dtype == torch.float64
    assert found.shape == ()
    torch.testing.assert_close(found, flat(a).norm(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("missing", [(), (0,), (1, 3), (0, 1, 2, 4)])
def test_the_inner_product_is_that_of_all_entries(missing: tuple[int, ...]) -> None:
    a, b = entries(1), entries(2)
    both = holes(a, *missing), holes(b, *missing)
    expected = flat(both[0]) @ flat(both[1])
    for left, right in ((holes(a, *missing), b), (a, holes(b, *missing)), both):
        found = vec.dot(W, [*left], [*right])
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_an_inner_product_with_itself_is_the_square_of_the_norm() -> None:
    a: Gradients = [*entries(3)]
    torch.testing.assert_close(
        vec.dot(W, a, a), vec.norm(W, a).square(), rtol=1e-6, atol=0
    )


def test_nothing_has_neither_length_nor_direction() -> None:
    nothing: Gradients = [None] * len(W)
    empty = holes(entries(1), 0, 2, 3, 4, 5)
    for a in (nothing, empty):
        assert vec.norm(W, a) == 0
        assert vec.dot(W, a, [*entries(2)]) == 0
    assert vec.dot(W, holes(entries(1), 0, 1, 2), holes(entries(2), 3, 4, 5)) == 0


@pytest.mark.parametrize("c", [2.0, 1.0, 0.0, -0.5])
@pytest.mark.parametrize("tensor", [False, True])
def test_times_scales_what_is_there(c: float, tensor: bool) -> None:
    a = holes(entries(1), 0)
    found = vec.times(torch.tensor(c, dtype=torch.float64) if tensor else c, a)
    assert found[0] is None
    for x, y in zip(a, found, strict=True):
        if x is not None and y is not None:
            assert y.dtype == x.dtype
            assert y.shape == x.shape
            torch.testing.assert_close(
                y, x * c, rtol=1e-2 if x.itemsize < 4 else 1e-6, atol=0
            )


def test_times_of_nothing_is_nothing() -> None:
    nothing: Gradients = [None, None]
    assert vec.times(torch.tensor(2.0), nothing) == nothing
    assert vec.times(2.0, nothing) == nothing


def test_times_makes_new_tensors_unless_it_is_by_one() -> None:
    a: Gradients = [torch.ones(2)]
    assert vec.times(1.0, a)[0] is a[0]
    for c in (2.0, torch.tensor(1.0)):
        [found] = vec.times(c, a)
        assert found is not None
        found.zero_()
    assert torch.equal(flat(a), torch.ones(2, dtype=torch.float64))


def test_a_mixture_has_what_either_has() -> None:
    a, b = entries(1), entries(2)
    left, right = holes(a, 0, 2), holes(b, 0, 3)
    found = vec.mix(2.0, left, torch.tensor(-3.0), right)
    assert found[0] is None
    expected = [
        None,
        a[1],
        -3 * b[2],
        2 * a[3],
        2 * a[4] - 3 * b[4],
        2 * a[5] - 3 * b[5],
    ]
    for x, y in zip(found[1:], expected[1:], strict=True):
        assert x is not None
        assert y is not None
        torch.testing.assert_close(
            x, y, rtol=1e-2 if x.itemsize < 4 else 1e-5, atol=1e-6
        )


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(1.0, 2.0, 0.5), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (-3.0, 1.5, -2.0)],
)
def test_a_ratio_to_zero_is_zero(a: float, b: float, expected: float) -> None:
    assert vec.ratio(torch.tensor(a), torch.tensor(b)) == expected


def test_a_ratio_hides_nothing_that_is_not_finite() -> None:
    assert vec.ratio(torch.tensor(math.inf), torch.tensor(2.0)).isinf()
    assert vec.ratio(torch.tensor(1.0), torch.tensor(math.nan)).isnan()


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("at", range(6))
def test_what_is_not_finite_gives_way_as_a_whole(bad: float, at: int) -> None:
    a, b = entries(1), holes(entries(2), 4)
    assert vec_equal(vec.finite(W, [*a], b), [*a])
    if a[at].numel() == 0:
        return
    a[at].fill_(bad)
    zeros = torch.zeros_like(a[4])
    expected = [zeros if x is None else x for x in b]
    assert vec_equal(vec.finite(W, [*a], b), [*expected])
    none = vec.finite(W, [*a], None)
    assert vec_equal(none, [torch.zeros_like(x) for x in a])


def vec_equal(a: Gradients, b: Gradients) -> bool:
    pairs = zip(a, b, strict=True)
    return all(
        x is y or (x is not None and y is not None and torch.equal(x, y))
        for x, y in pairs
    )


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_the_norm_of_whole_tensors_needs_no_squares_that_double_cannot_hold(
    size: float,
) -> None:
    x = torch.tensor([3.0, 4.0], dtype=torch.float64) * size
    assert vec.norm([x], [x]).item() == pytest.approx(5 * size, rel=1e-15)

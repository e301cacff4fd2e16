"""A multiple of the gradient: what its entries are, and weights that move along it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flatmin.core import LpBall
from flatmin.core import _tensors as ts
from flatmin.core._multiple import Multiple, add_, entries, pick, scaled, spread

C = torch.tensor(0.5, dtype=torch.float64)
YES, NO = torch.tensor(True), torch.tensor(False)


def two(ok: Tensor = YES) -> Multiple:
    return Multiple((torch.tensor([2.0, -4.0]), None, torch.tensor([6.0])), C, ok)


def values(eps: object) -> list[list[float] | None]:
    assert isinstance(eps, Multiple | list | tuple)
    return [None if e is None else e.tolist() for e in eps]


def test_an_entry_is_the_product_whoever_asks_for_it() -> None:
    eps = two()
    assert len(eps) == 3
    assert values(eps) == [[1.0, -2.0], None, [3.0]]
    assert [
        None if e is None else e.tolist() for e in map(eps.__getitem__, range(3))
    ] == values(eps)
    assert values(eps[1:]) == [None, [3.0]]
    assert values(eps[-1:]) == [[3.0]]
    assert values(Multiple((None, None), C, YES)) == [None, None]


@pytest.mark.parametrize("bad", [1.0, math.nan, math.inf])
def test_all_entries_are_zero_where_it_is_not_ok(bad: float) -> None:
    eps = Multiple((torch.tensor([bad, 1.0]), None), C, NO)
    assert values(eps) == [[0.0, 0.0], None]
    w = torch.tensor([3.0, 4.0])
    add_([w], pick(eps, [0]))
    assert w.tolist() == [3.0, 4.0]


def test_no_entry_is_computed_to_see_which_there_are() -> None:
    eps = two()
    assert entries(eps) is eps.v
    assert entries([None]) == [None]


def test_picked_spread_and_scaled_it_stays_a_multiple() -> None:
    eps = pick(two(), [0, 2])
    assert isinstance(eps, Multiple)
    assert values(eps) == [[1.0, -2.0], [3.0]]
    again = spread(eps, [1, 3], 4)
    assert isinstance(again, Multiple)
    assert values(again) == [None, [1.0, -2.0], None, [3.0]]
    longer = scaled(eps, [torch.tensor([10.0, 1.0]), torch.tensor([2.0])])
    assert isinstance(longer, Multiple)
    assert values(longer) == [[10.0, -2.0], [6.0]]


def test_lists_are_picked_spread_and_scaled_alike() -> None:
    eps = [torch.tensor([1.0]), None, torch.tensor([2.0])]
    assert values(pick(eps, [2, 0])) == [[2.0], [1.0]]
    assert values(spread(pick(eps, [0, 2]), [1, 0], 3)) == [[2.0], [1.0], None]
    assert values(scaled([torch.tensor([3.0])], [torch.tensor([2.0])])) == [[6.0]]


def grid(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex128])
def test_weights_move_as_far_without_looking_at_values(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an accelerator does, in groups of a few tensors."""
    shapes = [(3, 4), (), (5,), (2, 3, 2), (1,)]
    w, g = ([grid(*s, dtype=dtype) for s in shapes] for _ in range(2))
    expected = [a + 0.5 * b for a, b in zip(w, g, strict=True)]
    there, back = ([t.clone() for t in w] for _ in range(2))
    add_(there, Multiple(g, C, YES))
    monkeypatch.setattr(ts, "may_look", lambda xs: False)
    monkeypatch.setattr(ts, "_MANY", 6)
    add_(back, Multiple(g, C, NO))
    for a, b in zip(back, w, strict=True):
        assert torch.equal(a, b)
    add_(back, Multiple(g, C, YES))
    for a, b, e in zip(there, back, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(b, e, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_norm_does_not_depend_on_how_the_entries_lie(dtype: torch.dtype) -> None:
    """Short and long tensors, channels last, transposed, and of both dtypes."""
    xs = [
        grid(16, 64, 5, 5, dtype=dtype).to(memory_format=torch.channels_last),
        grid(200, 100, dtype=dtype).t(),
        grid(7, dtype=torch.float32),
        grid(130, 130, dtype=torch.float64),
        grid(2, 3, 4, 4, dtype=dtype).to(memory_format=torch.channels_last),
    ]
    squares = math.fsum(float(x.double().square().sum()) for x in xs)
    assert float(ts.norm(xs)) == pytest.approx(math.sqrt(squares), rel=1e-7)


def test_the_ball_makes_no_copy_of_the_gradient() -> None:
    g = [torch.tensor([3.0]), torch.tensor([4.0])]
    ascent = LpBall()([t.clone() for t in g], g, [0.5, 0.5], [0, 0])
    assert isinstance(ascent.eps, Multiple)
    assert all(a is b for a, b in zip(ascent.eps.v, g, strict=True))

"""Each function against the plain formula on one concatenated vector."""

import math

import pytest
import torch
from torch import Tensor

from flatmin.core import _tensors as ts
from tests.core.balls import flat

NARROW = [torch.float16, torch.bfloat16]
WIDE = [torch.float32, torch.float64]


def draw(*dtypes: torch.dtype) -> list[Tensor]:
    shapes = [(3, 4), (), (5,), (2, 1, 2)]
    return [
        torch.randn(shape, dtype=torch.float64).to(dtypes[i % len(dtypes)])
        for i, shape in enumerate(shapes)
    ]


def mixed() -> list[Tensor]:
    return draw(torch.float64, torch.float32)


@pytest.mark.parametrize("dtype", NARROW)
def test_wide_widens_what_is_narrow(dtype: torch.dtype) -> None:
    xs = draw(dtype)
    assert [x.dtype for x in ts.wide(xs)] == [torch.float32] * 4
    assert torch.equal(flat(ts.wide(xs)), flat(xs))


@pytest.mark.parametrize("dtype", WIDE)
def test_wide_keeps_what_is_wide(dtype: torch.dtype) -> None:
    xs = draw(dtype)
    assert all(a is b for a, b in zip(ts.wide(xs), xs, strict=True))


def test_largest() -> None:
    xs = mixed()
    assert ts.largest(xs).item() == flat(xs).abs().max().item()
    assert ts.largest(xs).dtype == torch.float64
    assert ts.largest([torch.ones(2), torch.tensor([math.nan])]).isnan()


def test_norm() -> None:
    for xs, close in (
        (draw(torch.float32), 1e-6),
        (draw(torch.float64), 1e-14),
        (mixed(), 1e-7),
    ):
        assert ts.norm(xs).item() == pytest.approx(flat(xs).norm().item(), rel=close)
        assert ts.norm(xs).dtype == torch.float64


@pytest.mark.parametrize("c", [1e-320, 1e-300, 1e-170, 1e170, 1e300])
def test_norm_of_float64_neither_overflows_nor_vanishes(c: float) -> None:
    xs = [torch.tensor([k * c], dtype=torch.float64) for k in (3, 4)]
    if c < 1e-308:
        # 1 / max|x| is not representable: not finite, so that nothing moves.
        assert not ts.norm(xs).isfinite()
    else:
        assert ts.norm(xs).item() == pytest.approx(5 * c, rel=1e-14, abs=0)


@pytest.mark.parametrize("c", [1e-30, 1e30])
def test_norm_of_float32_is_that_of_float64(c: float) -> None:
    xs = [torch.tensor([3 * c]), torch.tensor([4 * c])]
    assert ts.norm(xs).item() == pytest.approx(flat(xs).norm().item(), rel=1e-14, abs=0)
    xs = [torch.full((20_000,), c)]
    assert ts.norm(xs).item() == pytest.approx(flat(xs).norm().item(), rel=1e-6, abs=0)


@pytest.mark.parametrize("shape", [(1, 2**21 + 77), (1448, 1449), (2, 30)])
def test_norm_of_a_long_float32_vector_keeps_its_digits(shape: tuple[int, ...]) -> None:
    # Added up in float32, two million squares of 0.1 lose 1e-3.
    xs = [torch.full(shape, 0.1), torch.full(shape[::-1], 0.1).T, torch.ones(3)]
    assert ts.norm(xs).item() == pytest.approx(flat(xs).norm().item(), rel=1e-6, abs=0)


def test_norm_of_zero_is_zero() -> None:
    assert ts.norm([torch.zeros(2).double(), torch.zeros(())]).item() == 0


def test_norm_where_there_is_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ts, "_accumulator", lambda xs: torch.float32)
    xs = [torch.tensor([3e-30]), torch.tensor([4e-30])]
    assert ts.norm(xs).dtype == torch.float32
    assert ts.norm(xs).item() == pytest.approx(5e-30, rel=1e-6, abs=0)


def test_the_accumulator_is_float32_on_a_device_without_float64() -> None:
    class Apple:
        device = torch.device("mps")

    assert ts._accumulator([Apple()]) == torch.float32  # pyright: ignore
    assert ts._accumulator([torch.ones(1)]) == torch.float64


def test_total() -> None:
    xs = [x.abs() for x in mixed()]
    assert ts.total(xs).item() == pytest.approx(flat(xs).sum().item(), rel=1e-14)


def test_total_of_float32_is_summed_in_float64() -> None:
    xs = [torch.full((1,), 2.0**30), torch.full((2**10,), 2.0**-10)]
    assert ts.total(xs).item() == 2.0**30 + 1


def test_times() -> None:
    xs = mixed()
    scaled = ts.times(xs, torch.tensor(0.5).double())
    assert torch.equal(flat(scaled), flat(xs) / 2)
    assert [x.dtype for x in scaled] == [x.dtype for x in xs]


def test_times_each_is_in_place() -> None:
    xs = mixed()
    before, places = [x.clone() for x in xs], [x.data_ptr() for x in xs]
    ts.times_each_(xs, [1.0, 2.0, 0.5, 0.0])
    assert [x.data_ptr() for x in xs] == places
    factors = zip(before, (1.0, 2.0, 0.5, 0.0), strict=True)
    assert torch.equal(flat(xs), flat([x * c for x, c in factors]))


@pytest.mark.parametrize("r", [0.0, 0.5, 1.0, 3.0, 1e4])
def test_signed_power_and_its_total(r: float) -> None:
    xs = draw(torch.float64)
    s = ts.largest(xs)
    shares = flat(xs).abs() / s
    powers = flat(ts.signed_power(xs, s, r))
    torch.testing.assert_close(powers, flat(xs).sign() * shares**r)
    torch.testing.assert_close(ts.power_total(xs, s, r), (shares**r).sum())


def test_signed_power_to_infinity_keeps_the_largest_alone() -> None:
    xs = [torch.tensor([0.3, -0.7]), torch.tensor([0.7, 0.699999])]
    s = ts.largest(xs)
    assert flat(ts.signed_power(xs, s, math.inf)).tolist() == [0, -1, 1, 0]
    assert ts.power_total(xs, s, math.inf).item() == 2


@pytest.mark.parametrize("dtype", WIDE)
def test_the_largest_share_is_exactly_one(dtype: torch.dtype) -> None:
    # 1 / s is rounded: x * (1 / s) is not 1 for one x in seven.
    for k in range(1, 200):
        x = torch.full((1,), k / 7, dtype=dtype)
        assert ts.shares([x], ts.largest([x]))[0].item() == 1


@pytest.mark.parametrize("dtype", [*NARROW, *WIDE])
def test_zero_unless_keeps_every_bit_or_none(dtype: torch.dtype) -> None:
    values = [1.5, -0.0, math.inf, -math.inf, math.nan, 1e-3]
    x = torch.tensor(values, dtype=dtype)
    kept, dropped = x.clone(), x.clone()
    ts.zero_unless_([kept], torch.tensor(True))
    ts.zero_unless_([dropped], torch.tensor(False))
    torch.testing.assert_close(kept, x, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(kept.signbit(), x.signbit())
    assert dropped.tolist() == [0.0] * 6
    assert not dropped.signbit().any()


def test_zero_unless_on_mixed_dtypes_and_layouts() -> None:
    xs = [torch.full((2, 3), math.nan).T, torch.full((), math.inf).double()]
    ts.zero_unless_(xs, torch.tensor(False))
    assert flat(xs).tolist() == [0.0] * 7


def test_add_rounds_once() -> None:
    w, x = torch.ones(1, dtype=torch.bfloat16), torch.tensor([2**-8 + 2**-20])
    # Rounded to bfloat16 before the sum, x would make it a tie, which goes to 1.
    ts.add_([w], [x])
    assert w.item() == 1.0078125


def test_copy_is_in_place() -> None:
    w, x = torch.zeros(2, 3).T, torch.randn(3, 2)
    place = w.data_ptr()
    ts.copy_([w], [x])
    assert torch.equal(w, x)
    assert w.data_ptr() == place


@pytest.mark.parametrize("dtype", [*NARROW, *WIDE])
def test_cosine(dtype: torch.dtype) -> None:
    a, b = draw(dtype), draw(dtype)
    expected = torch.cosine_similarity(flat(a), flat(b), 0).item()
    close = 1e-14 if dtype == torch.float64 else 1e-6
    assert ts.cosine(a, b).item() == pytest.approx(expected, abs=close)
    assert ts.cosine(a, a).item() == 1
    assert ts.cosine(a, [-x for x in a]).item() == pytest.approx(-1, abs=close)


@pytest.mark.parametrize("angle", [1e-1, 1e-3, 1e-5, 1e-7])
def test_cosine_of_nearly_parallel_vectors_keeps_its_digits(angle: float) -> None:
    a = [torch.tensor([1.0]).double(), torch.tensor([0.0]).double()]
    b = [torch.tensor([math.cos(angle)]).double(), torch.tensor([math.sin(angle)])]
    b[1] = b[1].double()
    exact = 2 * math.sin(angle / 2) ** 2
    assert 1 - ts.cosine(a, b).item() == pytest.approx(exact, rel=1e-7, abs=2e-16)


@pytest.mark.parametrize("slope", [1e-2, 1e-4, 1e-6])
def test_cosine_of_float32_vectors_has_digits_beyond_float32(slope: float) -> None:
    a, b = [torch.tensor([1.0, 0.0])], [torch.tensor([1.0, slope])]
    exact = slope**2 / (1 + slope**2 + math.sqrt(1 + slope**2))
    assert 1 - ts.cosine(a, b).item() == pytest.approx(exact, rel=1e-2, abs=1e-14)


def test_cosine_with_zero_is_nan() -> None:
    assert ts.cosine([torch.zeros(2)], [torch.ones(2)]).isnan()


def test_a_multiple_is_added_in_place() -> None:
    w, x = torch.tensor([1.0, -2.0]), torch.tensor([4.0, 0.5])
    ts.add_times_([w], -0.5, [x])
    assert torch.equal(w, torch.tensor([-1.0, -2.25]))


def test_groups_are_cut_where_those_before_are_large_enough() -> None:
    xs = [torch.empty(n) for n in (3, 1, 5, 0, 4, 1)]
    assert ts.groups(xs, 4) == [[0, 1], [2], [3, 4], [5]]
    assert ts.groups(xs, 100) == [[0, 1, 2, 3, 4, 5]]
    assert ts.groups([], 4) == []

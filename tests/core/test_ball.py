"""Eq. 2 against what defines it: the highest point of the l_p ball."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flatmin.core import LpBall, Metric, PerGroup
from tests.core.balls import (
    EVERY_P,
    climb,
    dual,
    flat,
    lp_norm,
    p_values,
    radii,
    vectors,
)
from tests.problems import without

#: Relative tolerances; eps is computed in the gradient's own precision.
CLOSE = {torch.float64: 1e-10, torch.float32: 1e-4}
dtypes = st.sampled_from([torch.float64, torch.float32])


@given(vectors(), p_values, radii, dtypes)
def test_the_perturbation_has_norm_rho(
    g: list[float], p: float, rho: float, dtype: torch.dtype
) -> None:
    eps = flat(climb(p, [torch.tensor(g, dtype=dtype)], rho).eps)
    assert lp_norm(eps, p) == pytest.approx(rho, rel=CLOSE[dtype])


@given(vectors(), p_values, radii, dtypes)
def test_it_climbs_rho_times_the_dual_norm(
    g: list[float], p: float, rho: float, dtype: torch.dtype
) -> None:
    at = torch.tensor(g, dtype=dtype)
    ascent = climb(p, [at], rho)
    height = (flat(ascent.eps) @ at.double()).item()
    norm = lp_norm(at.double(), dual(p))
    assert height == pytest.approx(rho * norm, rel=CLOSE[dtype])
    assert ascent.norm.item() == pytest.approx(norm, rel=CLOSE[dtype])
    assert ascent.ok.item() is True


@given(vectors(2, 6), p_values, st.integers(0, 10_000))
def test_no_point_of_the_ball_is_higher(g: list[float], p: float, draw: int) -> None:
    at = torch.tensor(g, dtype=torch.float64)
    rng = torch.Generator().manual_seed(draw)
    others = torch.randn(200, len(g), generator=rng, dtype=torch.float64)
    # Draws near the top as well: a uniform one hardly ever comes close.
    others[100:] = flat(climb(p, [at]).eps) + 0.01 * others[100:]
    others = torch.stack([0.05 * v / lp_norm(v, p) for v in others])
    top = flat(climb(p, [at]).eps) @ at
    assert (others @ at).max() <= top * (1 + 1e-9)


@given(vectors(), p_values, dtypes, st.integers(-100, 100))
def test_a_power_of_two_before_the_gradient_changes_nothing(
    g: list[float], p: float, dtype: torch.dtype, k: int
) -> None:
    at = torch.tensor(g, dtype=dtype)
    power = 2.0 ** (k if dtype == torch.float32 else 5 * k)
    torch.testing.assert_close(
        climb(p, [at * power]).eps, climb(p, [at]).eps, rtol=CLOSE[dtype], atol=0
    )


@pytest.mark.parametrize("p", [p for p in EVERY_P if p != 1.0])
@pytest.mark.parametrize(
    ("dtype", "powers"),
    [
        (torch.float64, [-150, -80, -20, 20, 80, 150]),
        (torch.float32, [-30, -20, 20, 30]),
    ],
)
def test_loss_scale_changes_nothing(
    p: float, dtype: torch.dtype, powers: list[int]
) -> None:
    g = torch.tensor([1.0, -0.9, 0.3, 0.0, 0.999], dtype=dtype)
    expected = flat(climb(p, [g]).eps)
    # Rounding of the product is raised to the power q - 1.
    close = 10 * torch.finfo(dtype).eps * (dual(p) + 1)
    for k in powers:
        eps = flat(climb(p, [g * 10.0**k]).eps)
        torch.testing.assert_close(eps, expected, rtol=close, atol=0)


@given(vectors(2, 8), p_values, dtypes, st.data())
def test_the_split_into_tensors_and_their_order_do_not_matter(
    g: list[float], p: float, dtype: torch.dtype, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(g) - 1))
    one = torch.tensor(g, dtype=dtype)
    expected = flat(climb(p, [one]).eps)
    first, second = climb(p, [one[:cut], one[cut:]]).eps
    torch.testing.assert_close(
        flat([first, second]), expected, rtol=CLOSE[dtype], atol=0
    )
    second, first = climb(p, [one[cut:], one[:cut]]).eps
    torch.testing.assert_close(
        flat([first, second]), expected, rtol=CLOSE[dtype], atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_largest_entries_share_rho_equally_for_p_1(dtype: torch.dtype) -> None:
    g = [torch.tensor([3.0, -3.0, 2.999], dtype=dtype), torch.full((), 3.0).to(dtype)]
    assert flat(climb(1, g, 0.75).eps).tolist() == [0.25, -0.25, 0, 0.25]


@pytest.mark.parametrize("g", [[1.0, -0.5, 0.25], [2.0, -2.0, 0.1], [1.0, 1.0, 1.0]])
def test_p_1_is_the_limit_of_smaller_p(g: list[float]) -> None:
    limit = flat(climb(1, [torch.tensor(g).double()]).eps)
    off = [
        (flat(climb(p, [torch.tensor(g).double()]).eps) - limit).abs().max().item()
        for p in (1.1, 1.01, 1.001)
    ]
    assert off == sorted(off, reverse=True)
    assert off[-1] < 2e-3 * 0.05


@given(vectors(), radii)
def test_p_infinity_is_rho_times_the_sign(g: list[float], rho: float) -> None:
    at = torch.tensor(g, dtype=torch.float64)
    assert flat(climb(math.inf, [at], rho).eps).tolist() == (rho * at.sign()).tolist()


@given(vectors(), radii)
def test_p_2_is_rho_g_over_its_length(g: list[float], rho: float) -> None:
    at = torch.tensor(g, dtype=torch.float64)
    torch.testing.assert_close(
        flat(climb(2, [at], rho).eps), rho * at / at.norm(), rtol=1e-14, atol=0
    )


@pytest.mark.parametrize("p", EVERY_P)
def test_tensors_of_different_dtype_share_one_ball(p: float) -> None:
    # Exact in bfloat16, so that the narrow tensors hold the same numbers.
    parts = [[1.0, -0.5], [0.75, 0.25], [-0.875], [0.0]]
    kinds = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    g = [torch.tensor(v, dtype=d) for v, d in zip(parts, kinds, strict=True)]
    expected = flat(
        climb(p, [torch.tensor([v for part in parts for v in part]).double()]).eps
    )
    ascent = climb(p, g)
    # Small shares to the power 100 are 0 in float32.
    torch.testing.assert_close(flat(ascent.eps), expected, rtol=1e-4, atol=1e-30)
    dtypes = [e.dtype for e in ascent.eps if e is not None]
    assert dtypes == [torch.float64, torch.float32, torch.float32, torch.float32]


@pytest.mark.parametrize("p", EVERY_P)
def test_a_long_bfloat16_gradient_has_an_exact_norm(p: float) -> None:
    # 4096 ones: bfloat16 itself cannot count beyond 256.
    ascent = climb(p, [torch.ones(64, 64, dtype=torch.bfloat16)])
    assert lp_norm(flat(ascent.eps), p) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("p", EVERY_P)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_gradient_that_is_not_finite_moves_nothing(
    p: float, bad: float, dtype: torch.dtype
) -> None:
    g = [torch.tensor([1.0, bad, 0.0], dtype=dtype), torch.ones(2, dtype=dtype)]
    ascent = climb(p, g)
    assert flat(ascent.eps).tolist() == [0.0] * 5
    assert ascent.ok.item() is False


@pytest.mark.parametrize("p", EVERY_P)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_zero_gradient_moves_nothing(p: float, dtype: torch.dtype) -> None:
    ascent = climb(p, [torch.zeros(3, dtype=dtype), torch.zeros((), dtype=dtype)])
    assert flat(ascent.eps).tolist() == [0.0] * 4
    assert ascent.ok.item() is False
    assert ascent.norm.item() == 0


@pytest.mark.parametrize("p", EVERY_P)
@pytest.mark.parametrize(
    ("dtype", "least"),
    [(torch.float64, 5e-324), (torch.float32, 1.4e-45), (torch.float32, 1e-39)],
)
def test_a_denormal_gradient_moves_by_rho_or_not_at_all(
    p: float, dtype: torch.dtype, least: float
) -> None:
    ascent = climb(p, [torch.tensor([least, 0.0, -least], dtype=dtype)])
    length = lp_norm(flat(ascent.eps), p)
    assert length == (pytest.approx(0.05, rel=1e-4) if ascent.ok else 0)


@pytest.mark.parametrize("p", EVERY_P)
def test_huge_gradients_neither_overflow_nor_vanish(p: float) -> None:
    g = torch.tensor([3e38, -1e38, 1e-38])
    eps = flat(climb(p, [g]).eps)
    assert lp_norm(eps, p) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("p", EVERY_P)
def test_a_radius_per_tensor_scales_the_common_direction(p: float) -> None:
    g = [torch.tensor([1.0, 2.0]).double(), torch.tensor([-2.0]).double()]
    one = climb(p, g, 1.0).eps
    eps = LpBall(p)(g, g, [0.5, 0.125], [0, 1]).eps
    expected = flat(one) * torch.tensor([0.5, 0.5, 0.125]).double()
    torch.testing.assert_close(flat(eps), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("p", EVERY_P)
@pytest.mark.parametrize("ball", [LpBall, lambda p: PerGroup(LpBall(p))])
@pytest.mark.parametrize("kinds", [[torch.float32], [torch.float64, torch.bfloat16]])
def test_no_value_is_read_on_an_accelerator(
    p: float, ball: Callable[[float], Metric], kinds: list[torch.dtype]
) -> None:
    # Meta tensors have no values: a look at one, which makes a GPU wait, fails.
    g = [torch.ones(30_000, dtype=dtype, device="meta") for dtype in kinds]
    rho, group = [0.1, 0.2][: len(g)], [0, 1][: len(g)]
    with without(RuntimeError, "a value was read"):
        ascent = ball(p)([*g], [*g], rho, group)
    assert ascent.norm.dtype == torch.float64
    assert ascent.norm.is_meta
    assert all(e is not None and e.is_meta for e in ascent.eps)


def test_the_gradient_itself_is_left_alone() -> None:
    for p in EVERY_P:
        g = [torch.tensor([1.0, math.nan]), torch.tensor([2.0])]
        LpBall(p)(g, g, [0.5, 0.1], [0, 1])
        assert g[0][0] == 1
        assert g[0].isnan().tolist() == [False, True]
        assert g[1].tolist() == [2.0]


@pytest.mark.parametrize("p", EVERY_P)
def test_the_dual_exponent(p: float) -> None:
    q = LpBall(p).q
    assert (1 / p) + (1 / q) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("p", [0.999, 0.0, -1.0, -math.inf, math.nan])
def test_p_below_1_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=rf"p must be in \[1, inf\], got p={p}"):
        LpBall(p)


@pytest.mark.parametrize("p", ["2", None, True, [2.0]])
def test_p_that_is_no_number_is_refused(p: object) -> None:
    with pytest.raises(TypeError, match="p must be a number"):
        LpBall(p)  # pyright: ignore[reportArgumentType]

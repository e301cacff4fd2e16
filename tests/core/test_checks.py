import math

import pytest

from flatmin.core._checks import at_least, integer, number, radius


@pytest.mark.parametrize("value", [0, 0.0, 1, 0.05, 1e300])
def test_a_radius_is_returned_as_it_is(value: float) -> None:
    assert radius(value) == value


@pytest.mark.parametrize("value", [-1e-300, -1, -math.inf, math.inf, math.nan])
def test_a_radius_that_is_negative_or_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"sam_rho must be finite .*, got {value};"):
        radius(value, "sam_rho")


@pytest.mark.parametrize("value", ["0.05", None, True, [0.05], 1j])
def test_what_is_no_number_is_refused(value: object) -> None:
    kind = type(value).__name__
    with pytest.raises(TypeError, match=rf"rho must be a number, got .* \({kind}\)"):
        radius(value)


def test_number_lets_any_number_pass() -> None:
    assert number("x", -3) == -3
    assert number("x", math.inf) == math.inf
    assert math.isnan(number("x", math.nan))


def test_a_whole_number_that_is_large_enough_is_returned() -> None:
    assert integer("k", 3, 3) == 3


@pytest.mark.parametrize("value", [3.0, True, "3", None])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="k must be a whole number, got "):
        integer("k", value, 0)


def test_a_whole_number_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="k must be at least 3, got 2"):
        integer("k", 2, 3)


@pytest.mark.parametrize("value", [0, 0.0, 1e-300, math.inf])
def test_at_least_lets_its_bound_and_more_pass(value: float) -> None:
    at_least("tol", value, 0)


@pytest.mark.parametrize("value", [-1e-300, -math.inf, math.nan])
def test_at_least_refuses_less_and_nan(value: float) -> None:
    with pytest.raises(ValueError, match=rf"tol must be at least 0, got {value}\."):
        at_least("tol", value, 0)

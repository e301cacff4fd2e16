"""Refusals that every number a user hands over goes through."""

from __future__ import annotations

import math


def number(name: str, value: object) -> float:
    """``value`` if it is an int or a float (and no bool), else TypeError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = type(value).__name__
        raise TypeError(f"{name} must be a number, got {value!r} ({kind}).")
    return value


def radius(value: object, name: str = "rho") -> float:
    """``value`` if it is a finite number, zero or greater.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative, infinite or NaN.
    """
    rho = number(name, value)
    if not 0 <= rho < math.inf:
        raise ValueError(f"{name} must be finite and >= 0, got {rho}; SAM's is 0.05.")
    return rho


def at_least(name: str, value: float, least: float) -> None:
    """Refuse what is too small.

    Raises:
        TypeError: it is not a number.
        ValueError: it is smaller.
    """
    if not number(name, value) >= least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")


def whole(name: str, value: object, least: int) -> int:
    """``value`` if it is an int (and no bool), and large enough.

    Raises:
        TypeError: it is no int.
        ValueError: it is smaller.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    at_least(name, value, least)
    return value


def share(name: str, value: float) -> float:
    """``value`` if it is between 0 and 1.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not between 0 and 1.
    """
    if not 0 <= number(name, value) <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}.")
    return value


def part(name: str, value: float) -> float:
    """``value`` if it is above 0 and at most 1.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not.
    """
    if not 0 < number(name, value) <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {value}.")
    return value

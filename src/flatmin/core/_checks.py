"""Checks of the numbers that users pass in."""

from __future__ import annotations

import math


def number(name: str, value: object) -> float:
    """Return ``value`` if it is an int or a float (and no bool), else TypeError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = type(value).__name__
        raise TypeError(f"{name} must be a number, got {value!r} ({kind}).")
    return value


def radius(value: object, name: str = "rho") -> float:
    """Return ``value`` if it is a finite number, zero or greater.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative, infinite or NaN.
    """
    rho = number(name, value)
    if not 0 <= rho < math.inf:
        raise ValueError(f"{name} must be finite and >= 0, got {rho}; SAM's is 0.05.")
    return rho


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a value below ``least``.

    Raises:
        TypeError: it is not a number.
        ValueError: it is smaller.
    """
    if not number(name, value) >= least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")


def integer(name: str, value: object, least: int, usual: str = "") -> int:
    """Return ``value`` if it is an int (and no bool), and at least ``least``.

    Args:
        name: of the argument.
        value: what was given.
        least: the smallest that is allowed.
        usual: a hint for the message, such as "the paper's is 5".

    Raises:
        TypeError: it is no int.
        ValueError: it is smaller.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if value < least:
        hint = f"; {usual}" if usual else ""
        raise ValueError(f"{name} must be at least {least}, got {value}{hint}.")
    return value


def inside(name: str, value: object, interval: str, usual: str = "") -> float:
    """Return ``value`` if it is a number in the interval.

    Args:
        name: of the argument.
        value: what was given.
        interval: such as ``"(0, 1]"``, with square brackets for ends that belong to
            it; ``"[0, inf)"`` are the finite numbers from zero on.
        usual: a hint for the message, such as "the paper's is 0.9".

    Raises:
        TypeError: it is not a number.
        ValueError: it is outside, or NaN.
    """
    x = number(name, value)
    low, high = (float(end) for end in interval[1:-1].split(","))
    starts = low <= x if interval[0] == "[" else low < x
    ends = x <= high if interval[-1] == "]" else x < high
    if not (starts and ends):
        hint = f"; {usual}" if usual else ""
        raise ValueError(f"{name} must be in {interval}, got {value}{hint}.")
    return x

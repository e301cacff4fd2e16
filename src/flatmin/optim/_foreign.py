"""Refusals of calls that were written for another SAM, with the lines to write."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from flatmin.optim._call import Call
from flatmin.optim._elsewhere import ATTRIBUTES, LOOP, PAGE

P = ParamSpec("P")
R = TypeVar("R")


def explained(build: Callable[P, R]) -> Callable[P, R]:
    """Refuse a call that does not fit, and show the lines that do.

    Type checkers, editors and `inspect` see the signature of what is decorated.

    Args:
        build: ``SAM.__init__``, or a function from base and model to a SAM.
    """
    signature = inspect.signature(build)
    name, _, initialiser = build.__qualname__.partition(".")
    first = 1 if initialiser else 0

    @wraps(build)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        call = Call(name, signature, args[first:], kwargs)
        call.check()
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(call.instead(f"{name}(): {error}.")) from None
        return build(*args, **kwargs)

    return checked


def missing(name: str) -> str | None:
    """Return the message for an attribute that only other SAMs have, else None."""
    if name not in ATTRIBUTES:
        return None
    return f"flatmin.SAM has no {name}. Write{ATTRIBUTES[name]}More: {PAGE}"


def check_closure(closure: object) -> None:
    """Refuse a closure that cannot be called.

    Raises:
        TypeError: it is something else, such as a loss.
    """
    if closure is not None and not callable(closure):
        raise TypeError(
            f"step() takes nothing or a closure, got {type(closure).__name__}. "
            f"Write{LOOP}More: {PAGE}"
        )

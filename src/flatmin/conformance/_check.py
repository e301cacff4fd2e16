"""Checks: a measured figure, and the limit it has to keep."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch

from flatmin.conformance._adapter import Adapter, along_gradient

Verdict = Literal["pass", "fail", "n/a"]
Door = TypeVar("Door")

#: Errors that refuse on purpose. Others, such as KeyError, are accidents.
REFUSALS = (RuntimeError, TypeError, ValueError)


class NotApplicable(Exception):
    """The adapter lacks the function that a check needs."""


class Wrong(Exception):
    """The figure of a check cannot be measured, because something else is wrong."""


class Measured(NamedTuple):
    """The outcome of a measurement.

    Attributes:
        figure: in the unit that `Check.measured` names.
        note: what a reader of the figure should know.
    """

    figure: float
    note: str = ""


class Limit(Protocol):
    """Decides which figures pass."""

    def keeps(self, figure: float) -> bool:
        """Whether ``figure`` passes; NaN never does."""
        ...


@dataclass(frozen=True)
class AtMost:
    """Passes figures up to ``bound``."""

    bound: float

    def keeps(self, figure: float) -> bool:
        """Whether ``figure`` passes."""
        return figure <= self.bound

    def __str__(self) -> str:
        return f"<= {self.bound:g}"


@dataclass(frozen=True)
class AtLeast:
    """Passes figures from ``bound`` on."""

    bound: float

    def keeps(self, figure: float) -> bool:
        """Whether ``figure`` passes."""
        return figure >= self.bound

    def __str__(self) -> str:
        return f">= {self.bound:g}"


@dataclass(frozen=True)
class Result:
    """The verdict of a check on an adapter.

    Attributes:
        check: its id.
        verdict: ``"pass"``, ``"fail"`` or ``"n/a"``.
        figure: what was measured; None if nothing was.
        note: the reason, where the figure does not show it.
    """

    check: str
    verdict: Verdict
    figure: float | None
    note: str = ""


@dataclass(frozen=True)
class Check:
    """The measurement of one property of a SAM.

    Attributes:
        id: short and stable.
        title: the property, in one line.
        measured: what the figure is, and its unit.
        limit: which figures pass.
        measure: measures an adapter.
    """

    id: str
    title: str
    measured: str
    limit: Limit
    measure: Callable[[Adapter], Measured]

    def run(self, adapter: Adapter) -> Result:
        """Measure ``adapter``; an exception fails it, a missing function does not."""
        try:
            figure, note = self._in_peace(adapter)
        except NotApplicable as missing:
            return Result(self.id, "n/a", None, str(missing))
        except Exception as error:
            return Result(self.id, "fail", None, first_line(error))
        verdict = "pass" if self.limit.keeps(figure) else "fail"
        return Result(self.id, verdict, figure, note)

    def require(self, adapter: Adapter) -> None:
        """Raise unless ``adapter`` passes; for tests.

        Raises:
            AssertionError: it fails; the message has the figure and the limit.
            NotApplicable: it lacks the function that the check needs.
        """
        result = self.run(adapter)
        if result.verdict == "n/a":
            raise NotApplicable(result.note)
        figure = "no figure" if result.figure is None else f"{result.figure:g}"
        if result.verdict == "fail":
            raise AssertionError(
                f"{adapter.name} fails {self.id}, {self.title}: {figure}, limit "
                f"{self.limit} ({self.measured}). {result.note}".rstrip()
            )

    def _in_peace(self, adapter: Adapter) -> Measured:
        """Measure with a fixed seed and no warnings; keep the caller's random state."""
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            return self.measure(adapter)


def check(
    id: str, title: str, measured: str, limit: Limit
) -> Callable[[Callable[[Adapter], Measured]], Check]:
    """Turn a function of an adapter into a `Check`."""

    def decorate(measure: Callable[[Adapter], Measured]) -> Check:
        return Check(id, title, measured, limit, measure)

    return decorate


def first_line(error: BaseException) -> str:
    """Return an error's type and first line; of `Wrong` the first line only."""
    lines = str(error).strip().splitlines()
    if isinstance(error, Wrong):
        return lines[0]
    kind = type(error).__name__
    return f"{kind}: {lines[0]}" if lines else kind


def refusal(begin: Callable[[], object], moved: Callable[[], float]) -> str:
    """Call a function that an optimizer may refuse, and say how it refused.

    In some situations an optimizer may be right or refuse: an error before a weight has
    moved costs its reader a minute, a step that is silently wrong costs the training. A
    check that accepts both calls this, and measures if nothing was refused.

    Args:
        begin: builds the optimizer and makes its first step.
        moved: how far the weights are from where they were before the step.

    Returns:
        A note that begins with ``"refused: "``; empty if there was no error.

    Raises:
        Exception: the error of ``begin``, if it is not one of `REFUSALS` or came after
            the weights had moved.
    """
    try:
        begin()
    except REFUSALS as error:
        if moved() == 0:
            return f"refused: {first_line(error)}"
        raise
    return ""


def worst(figures: list[float]) -> float:
    """Return the greatest figure; NaN counts as infinity."""
    return max((math.inf if math.isnan(f) else f for f in figures), default=0.0)


def need_sams_formula(adapter: Adapter) -> None:
    """Refuse an adapter whose perturbation is not SAM's by design.

    Raises:
        NotApplicable: it is another.
    """
    if adapter.perturbation is not along_gradient:
        raise NotApplicable("a perturbation of its own, which is not SAM's")


def needed(door: Door | None, what: str) -> Door:
    """Return a function of an adapter, or refuse.

    Raises:
        NotApplicable: it is None.
    """
    if door is None:
        raise NotApplicable(f"no {what}")
    return door

"""What a measurement returns: a number, its standard error, and what it describes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

from torch import Tensor

#: A field of some measurements that is left out of dicts.
_HEAVY = "vectors"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Measurement:
    """A number that was measured around the weights of a model.

    Attributes:
        name: what was measured.
        value: the number, in the unit of the loss unless the measure says otherwise.
        error: its standard error; None where nothing was drawn at random.
        n: how many examples the loss is the mean of.
        settings: what it depends on, by name; numbers and words.
        how: the procedure, in words.

    Example:
        >>> from flatmin.diagnostics import Measurement
        >>> measured = Measurement(
        ...     name="sharpness", value=0.42531, n=900, settings={"rho": 0.05, "p": 2.0}
        ... )
        >>> measured
        sharpness 0.4253 (rho 0.05, p 2; n = 900)
        >>> float(measured)
        0.42531
    """

    name: str
    value: float
    n: int
    error: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    how: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all fields in types that JSON has; infinity and NaN become words.

        Vectors as long as the weights are left out.
        """
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        named.pop(_HEAVY, None)
        return {name: plain(value) for name, value in named.items()}

    def __float__(self) -> float:
        """The value."""
        return self.value

    def __repr__(self) -> str:
        """Return one readable line."""
        error = "" if self.error is None else f" ± {self.error:.2g}"
        said = [f"{name} {_short(value)}" for name, value in self.settings.items()]
        about = ", ".join([*said, *([self.how] if self.how else [])])
        examples = f"n = {self.n}"
        inside = f"{about}; {examples}" if about else examples
        return f"{self.name} {self.value:.4g}{error} ({inside})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Maximum(Measurement):
    """The highest rise of the loss that an ascent has found.

    Attributes:
        history: the rise of every point of the best ascent, from its start on.
        starts: the highest rise of every ascent; the first one's start is the one-step
            point.
    """

    history: tuple[float, ...] = ()
    starts: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class GroupMean(Measurement):
    """A mean over groups of examples.

    Attributes:
        groups: how many there are; ``n`` counts the examples in them.
    """

    groups: int = 1


def plain(value: Any) -> Any:
    """Return the same value in types that JSON has."""
    if isinstance(value, Measurement):
        return value.to_dict()
    if isinstance(value, Tensor):
        return plain(cast("Any", value).tolist())
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value).items()
        return {name: plain(one) for name, one in pairs}
    if isinstance(value, tuple | list):
        return [plain(one) for one in cast("list[Any]", value)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

"""The options of `flatmin.SAM` that every named method passes on."""

from __future__ import annotations

from typing import Literal, TypedDict

from flatmin.core import Scope


class Options(TypedDict, total=False):
    """Keyword arguments of `flatmin.SAM` that are free whatever the method is.

    ``method``, ``p`` and ``norm_over`` are not among them: a named method sets them.

    Attributes:
        scope: who shares one perturbation.
        decay_in_ascent: whether weight decay is a part of the loss that is climbed.
        protect_buffers: whether buffers keep the first pass's update alone.
        replay_rng: whether every pass draws the same random numbers.
        track: whether `statistics` has ``||eps||`` and ``cos(g, g_eps)`` too.
        check: whether the first pass is made twice, to see whether it can be repeated.
    """

    scope: Scope | Literal["replica", "world"] | None
    decay_in_ascent: bool
    protect_buffers: bool
    replay_rng: bool
    track: bool
    check: Literal["replay"] | None

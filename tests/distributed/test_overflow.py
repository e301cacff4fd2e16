"""A bad entry in one shard is one of the whole gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.distributed.overflow_jobs import Second, three_steps
from tests.distributed.ranks import Ranks

#: A reduction may treat its first and its second part differently.
either_part = pytest.mark.parametrize(
    ("kind", "where"), [("layers", 0), ("layers", 1), ("copied", 1)]
)


def run(
    ranks: Ranks, kind: str, second: Second, p: float = 2.0, scaled: bool = False
) -> dict[str, Any]:
    one, two = ranks.run(three_steps, kind, second, p, scaled)
    assert one == two
    assert one["kept"]
    return one


@either_part
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
def test_a_bad_entry_of_the_ascent_in_one_shard_makes_a_plain_step_everywhere(
    p: float, value: float, kind: str, where: int, ranks: Ranks
) -> None:
    spoiled = run(ranks, kind, Second(bad=(0,), value=value, where=where), p)
    plain = run(ranks, kind, Second(plain=True), p)
    assert spoiled["unperturbed"] == 1
    assert spoiled["weights"] == plain["weights"]


@either_part
@pytest.mark.parametrize("bad", [(1,), (0, 1)])
def test_a_bad_entry_of_the_descent_in_one_shard_skips_the_batch_everywhere(
    bad: tuple[int, ...], kind: str, where: int, ranks: Ranks
) -> None:
    spoiled = run(ranks, kind, Second(bad=bad, where=where), scaled=True)
    never = run(ranks, kind, Second(skipped=True), scaled=True)
    assert spoiled["scale"] == never["scale"] / 2
    # Scales are powers of two: dividing by another one rounds nothing.
    assert spoiled["weights"] == never["weights"]


@either_part
def test_a_bad_entry_of_the_ascent_in_one_shard_leaves_the_scale(
    kind: str, where: int, ranks: Ranks
) -> None:
    spoiled = run(ranks, kind, Second(bad=(0,), where=where), scaled=True)
    plain = run(ranks, kind, Second(plain=True), scaled=True)
    assert spoiled["scale"] == plain["scale"] == 2.0**10
    assert spoiled["weights"] == plain["weights"]

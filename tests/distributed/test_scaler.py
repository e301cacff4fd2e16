"""GradScaler on two ranks: an overflow on one of them is an overflow of both."""

from __future__ import annotations

import pytest

from tests.distributed import jobs
from tests.distributed.ranks import Ranks


@pytest.mark.parametrize("scope", ["replica", "world", "group"])
def test_an_overflow_of_one_rank_in_the_descent_skips_the_batch_everywhere(
    scope: str, ranks: Ranks
) -> None:
    one, two = ranks.run(jobs.scaled, scope, 1)
    never, _ = ranks.run(jobs.scaled, scope, None)
    assert one == two
    assert one["scale"] == never["scale"] / 2
    # Scales are powers of two: dividing by another one rounds nothing.
    assert one["weights"] == never["weights"]


@pytest.mark.parametrize("scope", ["replica", "world", "group"])
def test_an_overflow_of_one_rank_in_the_ascent_skips_nothing(
    scope: str, ranks: Ranks
) -> None:
    one, two = ranks.run(jobs.scaled, scope, 0)
    never, _ = ranks.run(jobs.scaled, scope, None)
    assert one == two
    assert one["scale"] == never["scale"]
    assert one["weights"] != never["weights"]


@pytest.mark.parametrize("scope", ["world", "group"])
def test_an_overflow_in_a_shared_ascent_makes_a_plain_step_everywhere(
    scope: str, ranks: Ranks
) -> None:
    one, two = ranks.run(jobs.scaled, scope, 0)
    plain, _ = ranks.run(jobs.scaled, scope, None, True)
    assert one == two == plain

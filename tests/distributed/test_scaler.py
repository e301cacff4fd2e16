"""GradScaler on two ranks: an overflow on one of them is an overflow of both."""

from __future__ import annotations

import pytest

from tests.distributed import jobs
from tests.distributed.ranks import Ranks


@pytest.mark.parametrize("bad", [(1,), (0, 1)])
@pytest.mark.parametrize("scope", ["replica", "world", "group"])
def test_an_overflow_of_one_rank_in_the_descent_skips_the_batch_everywhere(
    scope: str, bad: tuple[int, ...], ranks: Ranks
) -> None:
    one, two = ranks.run(jobs.scaled, scope, bad)
    never, _ = ranks.run(jobs.scaled, scope, None)
    assert one == two
    assert one["scale"] == never["scale"] / 2
    # Scales are powers of two: dividing by another one rounds nothing.
    assert one["weights"] == never["weights"]


@pytest.mark.parametrize("scope", ["replica", "world", "group"])
def test_an_overflow_of_one_rank_in_the_ascent_skips_nothing(
    scope: str, ranks: Ranks
) -> None:
    one, two = ranks.run(jobs.scaled, scope, (0,))
    never, _ = ranks.run(jobs.scaled, scope, None)
    assert one == two
    assert one["scale"] == never["scale"]
    assert one["weights"] != never["weights"]


@pytest.mark.parametrize("scope", ["world", "group"])
def test_an_overflow_in_a_shared_ascent_makes_a_plain_step_everywhere(
    scope: str, ranks: Ranks
) -> None:
    one, two = ranks.run(jobs.scaled, scope, (0,))
    plain, _ = ranks.run(jobs.scaled, scope, None, (0, 1))
    assert one == two == plain


def test_an_overflow_in_the_ascent_of_a_replica_makes_a_plain_step_there_alone(
    ranks: Ranks,
) -> None:
    one, two = ranks.run(jobs.scaled, "replica", (0,))
    plain_there, _ = ranks.run(jobs.scaled, "replica", None, (1,))
    assert one == two == plain_there
    for others in ((0,), (0, 1)):
        plain_elsewhere, _ = ranks.run(jobs.scaled, "replica", None, others)
        assert one["weights"] != plain_elsewhere["weights"]

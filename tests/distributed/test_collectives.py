"""What each scope communicates, collective by collective."""

from __future__ import annotations

import pytest

from tests.distributed import collective_jobs
from tests.distributed.collective_jobs import Collectives
from tests.distributed.ranks import Ranks

REDUCE, BROADCAST = "c10d::allreduce_", "c10d::broadcast_"


def of_a_step(ranks: Ranks, scope: str | None, norm: bool = False) -> Collectives:
    one, two = ranks.run(collective_jobs.of_a_step, scope, norm)
    assert one == two
    return one


def plain(ranks: Ranks, norm: bool = False) -> dict[str, int]:
    """Those of a plain step, which makes all of them in its one pass."""
    counts = of_a_step(ranks, None, norm)
    assert counts["outside"] == {}
    assert counts["pass 0"][REDUCE] >= 1
    return counts["pass 0"]


def test_a_replica_climbs_without_any_collective(ranks: Ranks) -> None:
    counts = of_a_step(ranks, "replica")
    assert counts == {"pass 0": {}, "pass 1": plain(ranks), "outside": {}}


def test_the_first_pass_of_a_replica_broadcasts_buffers_and_no_more(
    ranks: Ranks,
) -> None:
    usual = plain(ranks, norm=True)
    assert usual[BROADCAST] >= 1
    counts = of_a_step(ranks, "replica", norm=True)
    assert counts["pass 0"] == {BROADCAST: usual[BROADCAST]}
    assert counts["pass 1"] == {REDUCE: usual[REDUCE]}
    assert counts["outside"] == {}


@pytest.mark.parametrize("norm", [False, True])
def test_both_passes_of_the_world_are_those_of_a_plain_step(
    norm: bool, ranks: Ranks
) -> None:
    usual = plain(ranks, norm)
    counts = of_a_step(ranks, "world", norm)
    assert counts == {"pass 0": usual, "pass 1": usual, "outside": {}}


def test_a_group_makes_one_all_reduce_of_its_own(ranks: Ranks) -> None:
    counts = of_a_step(ranks, "group")
    assert counts == {"pass 0": {}, "pass 1": plain(ranks), "outside": {REDUCE: 1}}

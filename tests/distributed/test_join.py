"""Uneven inputs: what cannot wait for a process that has left says so at once."""

from __future__ import annotations

import pytest

from tests.distributed import join_jobs
from tests.distributed.ranks import Ranks

#: Methods that average or agree by themselves in scope ``Replica``.
TALK = ("gsam", "ae_sam", "friendly_sam", "looksam", "wsam", "bsam", "sparse_sam")


@pytest.mark.parametrize(
    ("name", "scope"), [("sam", "group"), *((name, "replica") for name in TALK)]
)
def test_join_is_refused_where_replicas_average_by_themselves(
    name: str, scope: str, ranks: Ranks
) -> None:
    for said, before, after in ranks.run(join_jobs.refused, name, scope):
        assert "inside of join()" in said
        assert "scope='world'" in said
        assert before == after


@pytest.mark.parametrize(
    ("name", "scope"), [("sam", "replica"), *((name, "world") for name in TALK[:3])]
)
def test_what_the_refusal_advises_works(name: str, scope: str, ranks: Ranks) -> None:
    (start, one), (_, two) = ranks.run(join_jobs.joined, name, scope)
    assert one == two
    assert one != start

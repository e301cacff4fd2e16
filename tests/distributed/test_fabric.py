"""Lightning Fabric on two real processes against the same loop without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed import fabric_jobs as jobs
from tests.distributed.jobs import SCOPES
from tests.distributed.ranks import Ranks


@pytest.mark.parametrize("scope", SCOPES)
def test_a_loop_with_fabric_is_that_without(scope: str, ranks: Ranks) -> None:
    one, two = ranks.run(jobs.trained, scope)
    assert one == two
    assert one == ranks.run(jobs.straight, scope)[0]


def test_sharded_by_fabric_is_sharded_by_hand(ranks: Ranks) -> None:
    for fabric, plain in ranks.run(jobs.sharded):
        assert fabric == plain


@pytest.mark.parametrize("method", ["sam", "looksam"])
@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
def test_fabric_saves_and_loads_what_sam_remembers(
    strategy: str, method: str, ranks: Ranks, tmp_path: Path
) -> None:
    path = str(tmp_path / "checkpoint")
    for straight, resumed in ranks.run(jobs.resumed, strategy, method, path):
        assert straight == resumed


def test_accumulating_inside_no_backward_sync_is_refused(ranks: Ranks) -> None:
    for message in ranks.run(jobs.accumulate_inside_no_sync):
        assert "inside of no_sync()" in message


def test_a_model_wrapped_after_sam_is_attached_or_refused(ranks: Ranks) -> None:
    for message in ranks.run(jobs.set_up_too_early, False):
        assert "optimizer.attach(wrapped_model)" in message
    one, two = ranks.run(jobs.set_up_too_early, True)
    assert one == two
    assert one == ranks.run(jobs.straight, "replica")[0]

"""FSDP2's weights may be whole between passes; a step and a measure mean the shards."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.distributed import whole_jobs
from tests.distributed.jobs import close
from tests.distributed.ranks import Ranks


@pytest.mark.parametrize("moment", whole_jobs.MOMENTS)
@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("root", None),
        ("layers", None),
        ("kept", None),
        ("offload", None),
        ("hybrid", None),
        ("root", "replay"),
    ],
)
def test_a_look_at_the_model_changes_no_step(
    kind: str, check: Literal["replay"] | None, moment: str, ranks: Ranks
) -> None:
    wanted = whole_jobs.trained(0, "one", moment, check)
    for found in ranks.run(whole_jobs.trained, kind, moment, check):
        close(found, wanted)


@pytest.mark.parametrize("kind", ["root", "layers"])
def test_weights_that_stay_whole_between_micro_batches_still_move(
    kind: str, ranks: Ranks
) -> None:
    wanted = whole_jobs.accumulated(0, "one")
    for found in ranks.run(whole_jobs.accumulated, kind):
        close(found, wanted)


@pytest.mark.parametrize("kind", ["root", "layers", "kept"])
def test_after_a_loop_that_was_left_the_model_is_as_before(
    kind: str, ranks: Ranks
) -> None:
    for before, after in ranks.run(whole_jobs.interrupted, kind):
        assert after == before


def test_whole_weights_are_not_taken_for_a_models_own(ranks: Ranks) -> None:
    for said in ranks.run(whole_jobs.refused):
        assert said["base"].endswith(
            "Build the base right after fully_shard, or call model.reshard() before."
        )
        for kind in ("root", "layers"):
            assert "diagnostics need whole parameters, got sharded" in said[kind]

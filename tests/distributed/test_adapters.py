"""Flat-LoRA under DistributedDataParallel: one noise for all replicas."""

from __future__ import annotations

import pytest

from tests.distributed import adapter_jobs
from tests.distributed.ranks import Ranks
from tests.distributed.test_ddp import close


@pytest.mark.everything  # Each rank has to import peft.
def test_replicas_stand_at_one_point_and_train_as_one_process(ranks: Ranks) -> None:
    one, two = ranks.run(adapter_jobs.trained)
    assert one == two
    alone = adapter_jobs.trained(None)
    close(one["adapters"], alone["adapters"])
    assert one["frozen"] == alone["frozen"] == one["seen"][0]
    assert one["seen"][1] != one["frozen"]

"""Averages of replicas and of shards are those of one process."""

from __future__ import annotations

import pytest

from tests.distributed import average_jobs
from tests.distributed.jobs import close
from tests.distributed.ranks import Ranks


@pytest.mark.parametrize("kind", ["DDP", "layers", "root", "tensor"])
def test_an_average_is_that_of_one_process(kind: str, ranks: Ranks) -> None:
    wanted = average_jobs.averaged(0, "one")
    for found in ranks.run(average_jobs.averaged, kind):
        assert found["kept"]
        assert found["average"] != found["weights"]
        close(found["average"], wanted["average"])
        close(found["outputs"], wanted["outputs"])

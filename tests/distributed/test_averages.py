"""Averages of replicas and of shards are those of one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.distributed import average_jobs
from tests.distributed.ranks import Ranks


@pytest.mark.parametrize("kind", ["DDP", "layers", "root", "tensor"])
def test_an_average_is_that_of_one_process(kind: str, ranks: Ranks) -> None:
    wanted = average_jobs.averaged(0, "one")
    for found in ranks.run(average_jobs.averaged, kind):
        assert found["kept"]
        assert found["average"] != found["weights"]
        close(found["average"], wanted["average"])
        close(found["outputs"], wanted["outputs"])


def close(mine: list[Any], theirs: list[Any]) -> None:
    for a, b in zip(mine, theirs, strict=True):
        x, y = (torch.tensor(v, dtype=torch.float64) for v in (a, b))
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)

"""Layers that communicate in every forward pass, whatever the scope."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flatmin import SAM
from tests.distributed import sync_jobs
from tests.distributed.jobs import RHO, batches, sgd
from tests.distributed.ranks import Ranks


def test_synchronised_statistics_are_those_of_one_process(ranks: Ranks) -> None:
    one, two = ranks.run(sync_jobs.synced, "world")
    assert one == two
    model = sync_jobs.network(nn.BatchNorm1d)
    optimizer = SAM(sgd(model), model, rho=RHO)
    for x, y in batches(4):
        for _ in optimizer.probes():
            cross_entropy(model(x), y).backward()
        optimizer.step()
    wanted = sync_jobs.state_of(model)
    assert one.keys() == wanted.keys()
    for name, values in wanted.items():
        a, b = (torch.tensor(v, dtype=torch.float64) for v in (one[name], values))
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12, msg=name)


@pytest.mark.parametrize("scope", ["replica", "group"])
def test_ranks_stay_equal_where_they_climb_apart(scope: str, ranks: Ranks) -> None:
    one, two = ranks.run(sync_jobs.synced, scope)
    assert one == two


@pytest.mark.parametrize("name", ["sam", "gsam"])
def test_every_step_begins_with_the_statistics_of_the_first_rank(
    name: str, ranks: Ranks
) -> None:
    # gsam averages none of its passes in DistributedDataParallel, which would then
    # not broadcast buffers either.
    one, two = ranks.run(sync_jobs.statistics_at_first, name)
    assert len(one) == 4
    assert one == two
    assert one[0] != one[1]

"""torch.distributed.checkpoint, loaded under another number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from flatmin import SAM
from tests.distributed.jobs import RHO, network, sgd, weights
from tests.distributed.ranks import Ranks
from tests.distributed.shard_jobs import (
    continue_on_two,
    load,
    save,
    save_from_two,
    train,
)
from tests.distributed.test_shards import difference, one_process
from tests.problems import OneProcess


@pytest.fixture
def world_of_one() -> Iterator[None]:
    with OneProcess():
        yield


def built(rho: float) -> tuple[nn.Module, SAM]:
    model = network()
    return model, SAM(sgd(model), model, rho=rho)


@pytest.mark.usefixtures("world_of_one")
def test_two_ranks_save_and_one_process_continues(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run(save_from_two, str(tmp_path))
    model, optimizer = built(rho=9.0)
    load(model, optimizer, str(tmp_path))
    assert optimizer.param_groups[0]["sam_rho"] == RHO
    assert optimizer.param_groups[0]["sam_step"] == 5
    train(model, optimizer, range(5, 10), None)
    expected, _ = one_process(10, torch.float64)
    assert difference(weights(model), expected) < 1e-12


@pytest.mark.usefixtures("world_of_one")
def test_one_process_saves_and_two_ranks_continue(ranks: Ranks, tmp_path: Path) -> None:
    model, optimizer = built(rho=RHO)
    train(model, optimizer, range(5), None)
    save(model, optimizer, str(tmp_path))
    one, two = ranks.run(continue_on_two, str(tmp_path))
    assert one == two
    assert one["step"] == 5
    expected, _ = one_process(10, torch.float64)
    assert difference(one["weights"], expected) < 1e-12

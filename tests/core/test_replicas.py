"""Who the replicas of a model are."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flatmin.core._scope import agree
from tests.problems import OneProcess


def test_replicas_agree_within_the_process_group_of_their_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reduce, groups = dist.all_reduce, list[Any]()

    def recorded(x: Tensor, *, group: Any) -> None:
        groups.append(group)
        reduce(x, group=group)

    with OneProcess():
        own: Any = dist.new_group([0])
        model = DistributedDataParallel(nn.Linear(2, 1), process_group=own)
        monkeypatch.setattr(dist, "all_reduce", recorded)
        assert agree(model, torch.tensor(3.0)).item() == 3.0
    assert groups == [own]

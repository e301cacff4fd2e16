"""Methods whose replicas and shards are one process; two are in tests/distributed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel as DDP

import flatmin
from flatmin import SAM
from flatmin.core import Group, Replica, Scope, World
from flatmin.core.combine import centre
from tests.problems import OneProcess, assert_same, batch, loss_of, mlp, tensors

DATA = batch(torch.float64)
Build = Callable[..., SAM]


@pytest.fixture(autouse=True)
def one_process() -> Iterator[None]:
    with OneProcess():
        yield


def everyone() -> Scope:
    group: Any = dist.new_group([0])
    return Group(group)


def trained(model: nn.Module, build: Build, **options: Any) -> nn.Module:
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    optimizer = build(base, model, **options)
    for _ in range(4):
        for probe in optimizer.probes():
            probe.backward(loss_of(model, DATA))
        optimizer.step()
    return model


def twins() -> tuple[nn.Module, nn.Module]:
    one, two = mlp(), mlp()
    spare = nn.Parameter(torch.ones(3, dtype=torch.float64))
    for model in (one, two):
        model.register_parameter("unused", nn.Parameter(spare.detach().clone()))
    two.load_state_dict(one.state_dict())
    return one, two


COMBINING: dict[str, tuple[Build, dict[str, Any]]] = {
    "gsam": (flatmin.gsam, {"alpha": 0.3}),
    "wsam": (flatmin.wsam, {"gamma": 0.4}),
    "ae_sam": (flatmin.ae_sam, {"steps": 6}),
    "friendly_sam": (flatmin.friendly_sam, {}),
    "random_sam": (flatmin.random_sam, {}),
}

#: Their entries are ranked over all shards.
RANKING: dict[str, tuple[Build, dict[str, Any]]] = {
    "zsharp": (flatmin.zsharp, {"share": 0.5}),
    "ire": (flatmin.ire, {"rho": 1.0, "every": 2}),
}


@pytest.mark.parametrize("name", COMBINING)
@pytest.mark.parametrize("scope", [Replica, World, everyone])
def test_one_replica_is_no_replica(name: str, scope: Callable[[], Scope]) -> None:
    build, options = COMBINING[name]
    plain, model = twins()
    wrapped = DDP(model, find_unused_parameters=True)
    trained(plain, build, **options)
    trained(wrapped, build, scope=scope(), **options)
    # A parameter that no replica uses has no gradient, and so does not decay.
    assert torch.equal(plain.get_parameter("unused"), torch.ones(3))
    assert_same(tensors(plain), tensors(model))


@pytest.mark.parametrize("name", [*COMBINING, *RANKING])
def test_one_shard_is_no_shard(name: str) -> None:
    build, options = {**COMBINING, **RANKING}[name]
    plain, model = mlp(), mlp()
    model.load_state_dict(plain.state_dict())
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    trained(plain, build, **options)
    trained(model, build, **options)
    for p, q in zip(plain.parameters(), model.parameters(), strict=True):
        whole: Any = q
        torch.testing.assert_close(whole.full_tensor(), p, rtol=1e-12, atol=1e-13)


def test_what_cannot_be_sharded_says_so() -> None:
    model = mlp()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match="whole parameters"):
        trained(model, flatmin.second_order_sam)


def test_rows_that_are_cut_are_not_centred() -> None:
    mesh = init_device_mesh("cpu", (1,))
    w = distribute_tensor(torch.ones(4, 6), mesh, [Shard(1)])
    with pytest.raises(ValueError, match="whole weight vectors"):
        centre([w], [torch.ones(4, 6)])


@pytest.mark.parametrize("gamma", [-0.1, 1.0, 2.0])
def test_a_weight_of_sharpness_has_its_range(gamma: float) -> None:
    with pytest.raises(ValueError, match=f"gamma must be in .*got {gamma}"):
        trained(mlp(), flatmin.wsam, gamma=gamma)

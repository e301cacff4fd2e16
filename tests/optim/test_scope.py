"""Scopes in a world of one; `tests/distributed` has the real processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel as DDP

from flatmin import SAM, gsam
from flatmin.core import Group, Replica, Scope, World
from flatmin.core._fsdp import reshard
from flatmin.core._shards import is_dtensor, local_as
from tests.problems import (
    OneProcess,
    assert_same,
    batch,
    loss_of,
    mlp,
    sam_steps,
    tensors,
)

DATA = batch(torch.float64)


@pytest.fixture(autouse=True)
def one_process() -> Iterator[None]:
    with OneProcess():
        yield


def everyone() -> Scope:
    group: Any = dist.new_group([0])
    return Group(group)


SCOPES: dict[str, Callable[[], Scope]] = {
    "replica": Replica,
    "world": World,
    "group": everyone,
}


@pytest.mark.parametrize("bucket_view", [False, True])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)
def test_one_replica_is_no_replica(
    scope: Callable[[], Scope], accumulate: bool, bucket_view: bool
) -> None:
    torch.manual_seed(4)
    plain = mlp()
    wrapped = DDP(mlp(), gradient_as_bucket_view=bucket_view)
    wrapped.module.load_state_dict(plain.state_dict())
    for model in (plain, wrapped):
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        shared = scope() if model is wrapped else None
        optimizer = SAM(base, model, rho=0.2, scope=shared)
        for _ in range(3):
            optimizer.zero_grad()
            for _ in range(2 if accumulate else 1):
                for _ in optimizer.probes(accumulate=accumulate):
                    loss_of(model, DATA).backward()
            optimizer.step()
    assert_same(tensors(plain), tensors(wrapped.module))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("scope", [None, World()])
def test_one_shard_is_the_whole(scope: Scope | None, p: float) -> None:
    plain, sharded = mlp(), mlp()
    sharded.load_state_dict(plain.state_dict())
    fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
    for model in (plain, sharded):
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        shared = scope if model is sharded else None
        optimizer = SAM(base, model, rho=0.2, p=p, scope=shared, track=True)
        sam_steps(optimizer, model, DATA, 3)
    whole = {name: w.full_tensor() for name, w in sharded.state_dict().items()}
    for name, w in plain.state_dict().items():
        torch.testing.assert_close(whole[name], w, rtol=1e-12, atol=1e-14)


def test_a_base_of_weights_that_were_whole_for_one_pass_is_refused() -> None:
    model = mlp()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with torch.no_grad():
        model(DATA[0])
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="Build the base right after fully_shard"):
        SAM(base, model)


def test_a_model_is_not_asked_for_shards_if_no_module_can_have_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unasked(torch.nn.Linear):
        def modules(self, remove_duplicate: bool = True) -> Iterator[torch.nn.Module]:
            raise AssertionError("the modules are walked through")

    monkeypatch.delitem(sys.modules, "torch.distributed.fsdp")
    reshard(Unasked(2, 2))


def test_a_gradient_is_cut_as_its_parameter_is() -> None:
    mesh = init_device_mesh("cpu", (1,))
    w = distribute_tensor(torch.zeros(4, 2), mesh, [Shard(0)])
    g = distribute_tensor(torch.arange(8.0).view(4, 2), mesh, [Replicate()])
    (part,) = local_as([g], [w])
    assert torch.equal(part, torch.arange(8.0).view(4, 2))
    assert not is_dtensor(part)


def test_a_parameter_that_nobody_in_a_group_uses_has_no_gradient() -> None:
    w = [torch.zeros(2), torch.zeros(3, dtype=torch.bfloat16)]
    mean = everyone().share(w, [torch.tensor([1.0, 2.0]), None])
    assert mean[1] is None
    assert [m.tolist() for m in mean if m is not None] == [[1, 2]]


def test_who_is_not_in_the_group_cannot_share_it() -> None:
    elsewhere: Any = dist.GroupMember.NON_GROUP_MEMBER
    with pytest.raises(ValueError, match="process 0 does not belong to the group"):
        Group(elsewhere)


def test_an_accumulating_loop_inside_no_sync_is_refused() -> None:
    model = DDP(mlp())
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    with model.no_sync(), pytest.raises(RuntimeError, match="inside of no_sync"):
        next(iter(optimizer.probes(accumulate=True)))
    for _ in optimizer.probes(accumulate=True):
        loss_of(model, DATA).backward()
    optimizer.step()


def test_join_is_refused_where_it_cannot_stand_in() -> None:
    model = DDP(mlp())
    optimizer = gsam(torch.optim.SGD(model.parameters(), lr=0.1), model)
    with model.join():
        with pytest.raises(RuntimeError, match=r"inside of join\(\)"):
            sam_steps(optimizer, model, DATA, 1)
        model.zero_grad()

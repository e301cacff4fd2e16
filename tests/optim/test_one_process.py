"""What is refused or dropped on several processes, in a world of one.

`tests/distributed/test_held.py` has the real processes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._composable.replicate import replicate
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage
from torch.nn.parallel import DistributedDataParallel as DDP

from flatmin import SAM, gsam
from flatmin.core._fsdp import has_unreduced
from flatmin.core._shards import any_is
from flatmin.optim import _wrapping
from tests.problems import OneProcess, batch, loss_of, mlp, sam_steps

DATA = batch(torch.float64)


@pytest.fixture(autouse=True)
def one_process() -> Iterator[None]:
    with OneProcess():
        yield


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def sharded() -> Any:
    model = mlp()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    return model


def test_gradients_that_fsdp_holds_back_are_refused_and_dropped() -> None:
    model = sharded()
    optimizer = SAM(sgd(model), model)
    model.set_requires_gradient_sync(False)
    # Left before FSDP2 has gathered anything.
    for _ in optimizer.probes():
        break
    loop = iter(optimizer.probes())
    next(loop)
    loss_of(model, DATA).backward()
    assert has_unreduced(model)
    with pytest.raises(
        RuntimeError, match=r"a pass .* ended with gradients that FSDP2"
    ):
        next(loop)
    assert not has_unreduced(model)
    loss_of(model, DATA).backward()
    with pytest.raises(RuntimeError, match="the loop begins with gradients that FSDP2"):
        next(optimizer.probes())
    loss_of(model, DATA).backward()
    optimizer.zero_grad()
    assert not has_unreduced(model)
    model.set_requires_gradient_sync(True)
    sam_steps(optimizer, model, DATA, 1)


def test_a_gradient_of_shards_that_no_step_has_used_is_refused() -> None:
    model = sharded()
    optimizer = SAM(sgd(model), model)
    loss_of(model, DATA).backward()
    with pytest.raises(RuntimeError, match="have a gradient that no step has used"):
        next(optimizer.probes())


@pytest.mark.parametrize("bad", [0.0, torch.nan])
def test_one_entry_of_a_shard_decides(bad: float) -> None:
    model = sharded()
    loss_of(model, DATA).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    plain = [torch.ones(2, dtype=torch.float64)]

    def is_bad(g: Tensor) -> Tensor:
        return (g.isnan() if bad else g == -7.0).any()

    assert not any_is(is_bad, [*gradients, *plain])
    last: Any = gradients[-1]
    last.to_local()[0] = bad or -7.0
    assert any_is(is_bad, [*gradients, *plain])


def test_a_hook_that_is_not_called_is_refused() -> None:
    def nothing(state, bucket):  # DDP refuses annotations other than its own
        del state
        future: Any = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    model = DDP(mlp())
    model.register_comm_hook(None, nothing)
    with pytest.raises(RuntimeError, match="without the communication hook nothing"):
        sam_steps(gsam(sgd(model), model), model, DATA, 1)
    sam_steps(SAM(sgd(model), model), model, DATA, 1)


def test_replicate_is_refused() -> None:
    model = mlp()
    replicate(model)
    with pytest.raises(ValueError, match="DistributedDataParallel instead"):
        SAM(sgd(model), model)


@pytest.mark.parametrize("stages", [1, 2])
def test_a_stage_of_several_is_refused(
    stages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_wrapping, "_in_processes", lambda: True)
    model = mlp()
    device, group = torch.device("cpu"), dist.group.WORLD
    stage = PipelineStage(model, 0, 1, device, input_args=(DATA[0],), group=group)
    stage.num_stages = stages
    optimizer = SAM(sgd(model), model)
    if stages == 1:
        sam_steps(optimizer, model, DATA, 1)
        return
    with pytest.raises(RuntimeError, match="the model is a stage of a pipeline"):
        next(optimizer.probes())


def test_no_pipeline_is_looked_for_if_nothing_has_loaded_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_wrapping, "_in_processes", lambda: True)
    monkeypatch.delitem(sys.modules, "torch.distributed.pipelining.stage")
    monkeypatch.delattr(_wrapping.gc, "get_referrers")
    model = mlp()
    sam_steps(SAM(sgd(model), model), model, DATA, 1)


def test_a_model_that_is_sharded_after_its_base_was_built_is_named() -> None:
    model = mlp()
    optimizer = SAM(sgd(model), model)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(RuntimeError, match="Build base and SAM after fully_shard"):
        sam_steps(optimizer, model, DATA, 1)

"""FSDP2, hybrid sharding and tensor parallelism equal one process."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from flatmin import SAM
from flatmin.core import Replica, TwoPoint
from tests.distributed import shard_jobs
from tests.distributed.jobs import RHO, batches, network, sgd, weights
from tests.distributed.ranks import Ranks

KINDS = ("layers", "root", "kept", "offload", "hybrid", "copied", "tensor")


def one_process(steps: int, dtype: torch.dtype, **sam: Any) -> tuple[list[Any], SAM]:
    model = network(dtype)
    optimizer = SAM(sgd(model), model, rho=RHO, **sam)
    for x, y in batches(steps, dtype=dtype):
        for _ in optimizer.probes():
            cross_entropy(model(x), y).backward()
        optimizer.step()
    return weights(model), optimizer


def difference(a: list[Any], b: list[Any]) -> float:
    pairs = zip(exact(a), exact(b), strict=True)
    return max(float((x - y).abs().max()) for x, y in pairs)


def exact(values: list[Any]) -> list[Tensor]:
    return [torch.tensor(x, dtype=torch.float64) for x in values]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)]
)
def test_sharded_training_is_that_of_one_process(
    kind: str, dtype: torch.dtype, tolerance: float, ranks: Ranks
) -> None:
    one, two = ranks.run(shard_jobs.trained, kind, 10, dtype, {})
    assert one["weights"] == two["weights"]
    assert one["kept"]
    assert two["kept"]
    expected, _ = one_process(10, dtype)
    assert difference(one["weights"], expected) < tolerance


def test_passes_in_bfloat16_leave_the_weights_in_float32_as_they_were(
    ranks: Ranks,
) -> None:
    one, two = ranks.run(shard_jobs.trained, "bfloat16", 10, torch.float32, {})
    assert one["weights"] == two["weights"]
    assert one["kept"]
    assert two["kept"]
    expected, _ = one_process(10, torch.float32)
    plain, _ = one_process(10, torch.float32, method=TwoPoint(gate=lambda _: False))
    # bfloat16 has eight bits.
    assert difference(one["weights"], expected) < 2**-8
    assert difference(one["weights"], plain) > 2**-5


@pytest.mark.parametrize("kind", ["layers", "tensor"])
@pytest.mark.parametrize("p", [1.0, 1.5, 3.0, math.inf])
def test_the_norm_is_that_of_the_whole_for_every_p(
    p: float, kind: str, ranks: Ranks
) -> None:
    settings = {"p": p, "track": True}
    one, two = ranks.run(shard_jobs.trained, kind, 3, torch.float64, settings)
    expected, optimizer = one_process(3, torch.float64, p=p, track=True)
    assert difference(one["weights"], expected) < 1e-12
    assert optimizer.statistics.grad_norm is not None
    assert optimizer.statistics.cosine is not None
    for rank in (one, two):
        assert rank["norm"] == pytest.approx(optimizer.statistics.grad_norm.item())
        assert rank["cosine"] == pytest.approx(optimizer.statistics.cosine.item())


def test_a_scope_that_shards_cannot_have_is_refused(ranks: Ranks) -> None:
    for message in ranks.run(shard_jobs.refused, Replica()):
        assert "scope Replica needs whole parameters" in message

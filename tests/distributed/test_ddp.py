"""DistributedDataParallel on two real processes against one process and formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from flatmin import SAM
from tests.distributed import jobs
from tests.distributed.jobs import LR, MOMENTUM, RHO, M, batches, network, part, sgd
from tests.distributed.ranks import WORLD_SIZE, Ranks
from tests.reference.m_sam import m_sam_gradients


def one_process(
    steps: int, dtype: torch.dtype = torch.float64, **sam: Any
) -> list[Any]:
    """SAM of one process with the whole batch."""
    model = network(dtype)
    optimizer = SAM(sgd(model), model, rho=RHO, **sam)
    for x, y in batches(steps, dtype=dtype):
        for _ in optimizer.probes():
            cross_entropy(model(x), y).backward()
        optimizer.step()
    return jobs.weights(model)


def m_sam(
    steps: int,
    m: int,
    n: int = WORLD_SIZE * M,
    dtype: torch.dtype = torch.float64,
    joined_after: float = math.inf,
) -> list[Any]:
    """The straight-line reference: every ``m`` of ``n`` examples climb alone.

    From some step on rank 0 has joined: it has no examples, and counts as zero.
    """
    model = network(dtype)
    names = [name for name, _ in model.named_parameters()]

    def loss(w: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        out = functional_call(model, dict(zip(names, w, strict=True)), (x,))
        return cross_entropy(out, y)

    w = [p.detach() for p in model.parameters()]
    v = [torch.zeros_like(p) for p in w]
    for k, (x, y) in enumerate(batches(steps, n, dtype)):
        if k < joined_after:
            g = m_sam_gradients(loss, w, x, y, m=m, rho=RHO)
        else:
            g = m_sam_gradients(loss, w, part(1, x), part(1, y), m=M, rho=RHO)
            g = [t / WORLD_SIZE for t in g]
        v = [MOMENTUM * old + new for old, new in zip(v, g, strict=True)]
        w = [p - LR * u for p, u in zip(w, v, strict=True)]
    return [p.tolist() for p in w]


def close(
    a: list[Any], b: list[Any], *, rtol: float = 1e-12, atol: float = 1e-13
) -> None:
    torch.testing.assert_close(
        [torch.tensor(x, dtype=torch.float64) for x in a],
        [torch.tensor(x, dtype=torch.float64) for x in b],
        rtol=rtol,
        atol=atol,
    )


@pytest.mark.parametrize("scope", jobs.SCOPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_are_bitwise_equal_after_fifty_steps(
    scope: str, dtype: torch.dtype, ranks: Ranks
) -> None:
    one, two = ranks.run(jobs.trained, scope, 50, {}, {"dtype": dtype})
    assert one == two


@pytest.mark.parametrize("scope", ["replica", "alone"])
def test_a_replica_climbs_along_its_own_gradient(scope: str, ranks: Ranks) -> None:
    close(ranks.run(jobs.trained, scope, 10, {}, {})[0], m_sam(10, M))


@pytest.mark.parametrize("scope", ["world", "group"])
def test_a_common_perturbation_is_that_of_one_process(scope: str, ranks: Ranks) -> None:
    close(ranks.run(jobs.trained, scope, 10, {}, {})[0], one_process(10))


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("scope", ["replica", "world", "group"])
def test_in_float32_the_difference_is_one_of_rounding(
    scope: str, steps: int, ranks: Ranks
) -> None:
    dtype = torch.float32
    trained = ranks.run(jobs.trained, scope, steps, {}, {"dtype": dtype})[0]
    own = scope == "replica"
    wanted = m_sam(steps, M, dtype=dtype) if own else one_process(steps, dtype)
    close(trained, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("p", [1.0, 1.5, float("inf")])
def test_a_common_perturbation_is_that_of_one_process_for_every_p(
    p: float, ranks: Ranks
) -> None:
    close(ranks.run(jobs.trained, "group", 5, {}, {"p": p})[0], one_process(5, p=p))


def test_the_scopes_are_different_algorithms() -> None:
    own, common = torch.tensor(m_sam(5, M)[1]), torch.tensor(one_process(5)[1])
    assert (own - common).abs().max() > 1e-4


OPTIONS: list[dict[str, Any]] = [
    {"gradient_as_bucket_view": True},
    {"find_unused_parameters": True},
    {"broadcast_buffers": False},
    {"bucket_cap_mb": 1e-5},
    {"hook": True},
]


@pytest.mark.parametrize(
    ("scope", "option"),
    [(scope, option) for scope in ("replica", "world") for option in OPTIONS]
    + [("world", {"static_graph": True})],
)
def test_options_of_ddp_change_nothing(
    scope: str, option: dict[str, Any], ranks: Ranks
) -> None:
    expected = m_sam(4, M) if scope == "replica" else one_process(4)
    one, two = ranks.run(jobs.trained, scope, 4, option, {})
    assert one == two
    close(one, expected)


@pytest.mark.parametrize(
    ("scope", "times"), [("replica", 1), ("alone", 1), ("group", 1), ("world", 2)]
)
def test_only_the_world_averages_in_the_ascent_pass(
    scope: str, times: int, ranks: Ranks
) -> None:
    for averaged, plain in ranks.run(jobs.averaging, scope):
        assert plain == sum(p.numel() for p in network().parameters())
        assert averaged == times * plain


@pytest.mark.parametrize("bucket_view", [False, True])
def test_accumulating_loops_are_m_sam_within_each_rank(
    bucket_view: bool, ranks: Ranks
) -> None:
    one, two = ranks.run(jobs.accumulated, bucket_view)
    assert one == two
    close(one, m_sam(3, 3))


def test_accumulating_inside_no_sync_is_refused(ranks: Ranks) -> None:
    for message in ranks.run(jobs.accumulate_inside_no_sync):
        assert "inside of no_sync()" in message


@pytest.mark.parametrize(("scope", "each"), [("replica", [0, 1]), ("world", [1, 1])])
def test_an_infinite_ascent_gradient_stops_whom_it_reaches(
    scope: str, each: list[int], ranks: Ranks
) -> None:
    one, two = ranks.run(jobs.non_finite_on_one_rank, scope, 0)
    assert one["weights"] == two["weights"]
    assert [one["unperturbed"], two["unperturbed"]] == each


@pytest.mark.parametrize("scope", ["replica", "world", "group"])
def test_an_infinite_descent_gradient_skips_the_step_on_every_rank(
    scope: str, ranks: Ranks
) -> None:
    one, two = ranks.run(jobs.non_finite_on_one_rank, scope, 1)
    assert one == two
    assert all(torch.tensor(w).isfinite().all() for w in one["weights"])


@pytest.mark.parametrize(("scope", "m"), [("replica", M), ("world", WORLD_SIZE * M)])
def test_uneven_inputs_are_joined(scope: str, m: int, ranks: Ranks) -> None:
    one, two = ranks.run(jobs.uneven, scope)
    assert one == two
    close(one, m_sam(4, m, joined_after=2))


def test_batch_norm_is_updated_once_and_as_in_a_plain_step(ranks: Ranks) -> None:
    for sam, plain in ranks.run(jobs.batch_norm):
        assert sam == plain


@pytest.mark.parametrize("scope", ["replica", "world"])
def test_both_gradients_live_side_by_side(scope: str, ranks: Ranks) -> None:
    plain = ranks.run(jobs.cosines, scope, False)
    views = ranks.run(jobs.cosines, scope, True)
    assert plain == views
    assert all(abs(cosine) < 1 - 1e-6 for cosine in plain)
